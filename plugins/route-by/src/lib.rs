//! Route by: chooses the upstream, or a prefix of the path, by field, cookie or weight.
//!
//! Rules come first, in their order; who fits none takes part in the split. A client stays on its
//! side: by a cookie that the response sets, or because the side is a function of what the client is
//! known by and of the weights alone, the same in every instance, worker and replica.

use postern_plugin::Action;
use postern_plugin::EditError;
use postern_plugin::Fault;
use postern_plugin::Plugin;
use postern_plugin::Reply;
use postern_plugin::Request;
use postern_plugin::Response;
use postern_plugin::Setup;
use postern_plugin::config;
use postern_plugin::config::Item;
use postern_plugin::config::Section;
use postern_plugin::exchange;
use postern_plugin::random;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const DEFAULT_MAX_AGE_MS: u64 = 30 * DAY_MS;

/// The policy, configured.
#[derive(Debug)]
pub struct RouteBy {
    rules: Vec<Rule>,
    split: Option<Split>,
}

#[derive(Debug)]
struct Rule {
    source: Source,
    /// None: any value.
    value: Option<String>,
    target: Target,
}

#[derive(Debug)]
enum Source {
    Header(String),
    Cookie(String),
}

/// At least one of both.
#[derive(Debug)]
struct Target {
    upstream: Option<String>,
    /// Without a slash at its end.
    prefix: Option<String>,
}

#[derive(Debug)]
struct Split {
    sides: Vec<Side>,
    total: u64,
    assign: Assign,
}

#[derive(Debug)]
struct Side {
    name: String,
    weight: u64,
    target: Target,
}

#[derive(Debug)]
enum Assign {
    /// By chance at first, and then by the name of the side in a cookie.
    Cookie { name: String, max_age: u64 },
    /// By what the client is known by; `seed` makes two splits differ.
    Key {
        source: Option<Source>,
        seed: String,
    },
}

impl Plugin for RouteBy {
    fn configure(config: &str, setup: &mut Setup) -> Result<Self, String> {
        let made = config::read(config, |config| {
            let rules = config.get("rules").list(|item| item.section(rule));
            let split = config.get("split").section(split);
            let rules = rules.unwrap_or_default();
            if rules.is_empty() && split.is_none() {
                return config.wrong("give `rules`, `split` or both");
            }
            Some(Self { rules, split })
        })?;
        let mut view = vec![":path", "@client-ip"];
        for rule in &made.rules {
            if let Source::Header(name) = &rule.source {
                view.push(name);
            }
        }
        view.sort_unstable();
        view.dedup();
        setup.request_view(view);
        setup.response_view(["@state"]);
        Ok(made)
    }

    fn on_request(&self, request: &mut Request) -> Result<Action, Fault> {
        if let Some(rule) = self.rules.iter().find(|rule| rule.fits(request)) {
            return rule.target.take(request);
        }
        let Some(split) = &self.split else {
            return Ok(Action::Next);
        };
        split.side(request)?.target.take(request)
    }

    fn on_response(&self, response: &mut Response) -> Result<Action, Fault> {
        if let Some(Split {
            assign: Assign::Cookie { name, max_age },
            ..
        }) = &self.split
            && let Some(side) = response.get("@state").filter(|side| !side.is_empty())
        {
            let cookie =
                format!("{name}={side}; Path=/; Max-Age={max_age}; SameSite=Lax; HttpOnly");
            response.append("set-cookie", &cookie)?;
        }
        Ok(Action::Next)
    }
}

impl Rule {
    fn fits(&self, request: &Request) -> bool {
        match (self.source.value(request), &self.value) {
            (Some(value), Some(wanted)) => value == *wanted,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }
}

impl Source {
    fn value(&self, request: &Request) -> Option<String> {
        match self {
            Self::Header(name) => request.get(name),
            Self::Cookie(name) => request.cookie(name),
        }
    }
}

impl Target {
    fn take(&self, request: &mut Request) -> Result<Action, Fault> {
        if let Some(upstream) = &self.upstream {
            request.set_upstream(upstream).map_err(|error| {
                Fault::from(format!("upstream {upstream}: {}", error.message()))
            })?;
        }
        if let Some(prefix) = &self.prefix {
            let path = format!("{prefix}{}", request.path());
            match request.set_path(&path) {
                // As long as that is the client's doing.
                Err(EditError::TooLarge) => {
                    return Ok(Reply::text(414, "the path is too long\n").into());
                }
                done => done?,
            }
        }
        Ok(Action::Next)
    }
}

impl Split {
    fn side(&self, request: &Request) -> Result<&Side, Fault> {
        let number = match &self.assign {
            Assign::Cookie { name, .. } => {
                let known = request.cookie(name);
                let known = known.and_then(|name| self.sides.iter().find(|side| side.name == name));
                if let Some(side) = known {
                    return Ok(side);
                }
                let side = self.at(random::number() % self.total);
                exchange::set_state(side.name.as_bytes())?;
                return Ok(side);
            }
            Assign::Key { source, seed } => {
                let value = source.as_ref().and_then(|source| source.value(request));
                let key = value.or_else(|| request.get("@client-ip"));
                stable(seed, &key.unwrap_or_default()) % self.total
            }
        };
        Ok(self.at(number))
    }

    /// `number` is less than the sum of the weights.
    fn at(&self, mut number: u64) -> &Side {
        for side in &self.sides {
            if number < side.weight {
                return side;
            }
            number -= side.weight;
        }
        // There is one: `split` sees to it.
        &self.sides[0]
    }
}

/// The same for ever: FNV-1a, and a finishing step that mixes its weak lower bits.
fn stable(seed: &str, key: &str) -> u64 {
    let bytes = seed.bytes().chain([0]).chain(key.bytes());
    let hash = bytes.fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    hash >> 32
}

fn rule(section: &Section<'_>) -> Option<Rule> {
    let source = source(section);
    let value = section.get("value").text();
    let target = target(section);
    Some(Rule {
        source: match source? {
            Some(source) => source,
            None => return section.wrong("give `header` or `cookie`"),
        },
        value,
        target: target?,
    })
}

/// None: there is a problem. Some(None): there is no key for it.
fn source(section: &Section<'_>) -> Option<Option<Source>> {
    let header = section.get("header");
    let cookie = section.get("cookie");
    match (header.is_given(), cookie.is_given()) {
        (false, false) => Some(None),
        (true, true) => section.wrong("`header` and `cookie` exclude each other"),
        (true, false) => match header.field_name()? {
            name if name == "set-cookie" => section.wrong("header: not a field of requests"),
            name => Some(Some(Source::Header(name))),
        },
        (false, true) => Some(Some(Source::Cookie(cookie.parsed(cookie_name)?))),
    }
}

fn cookie_name(name: &str) -> Result<String, String> {
    if config::is_token(name) {
        Ok(name.to_owned())
    } else {
        Err("not the name of a cookie".to_owned())
    }
}

fn target(section: &Section<'_>) -> Option<Target> {
    let upstream = section.get("upstream").text();
    let prefix = section.get("prefix").path();
    if upstream.is_none() && prefix.is_none() {
        return section.wrong("give `upstream`, `prefix` or both");
    }
    Some(Target {
        upstream,
        prefix: prefix.map(|prefix| prefix.trim_end_matches('/').to_owned()),
    })
}

fn split(section: &Section<'_>) -> Option<Split> {
    let sides = section.need("sides").list(|item: Item<'_>| {
        item.section(|side| {
            let name = side.need("name").parsed(cookie_name);
            let weight = side.need("weight").number(0..=1_000_000);
            let target = match (
                side.get("upstream").is_given(),
                side.get("prefix").is_given(),
            ) {
                // The side of those who stay where the rule sends them.
                (false, false) => Some(Target {
                    upstream: None,
                    prefix: None,
                }),
                _ => target(side),
            };
            Some(Side {
                name: name?,
                weight: weight?,
                target: target?,
            })
        })
    });
    let by = section.get("by");
    let has_key = by.is_given();
    let by = by.section(source);
    let seed = section.get("seed").text();
    let remember = section.get("remember");
    let has_cookie = remember.is_given();
    let remember = remember.section(|cookie| {
        let name = cookie.need("cookie").parsed(cookie_name);
        let max_age = cookie.get("max-age").duration_ms(1000..=365 * DAY_MS);
        Some(Assign::Cookie {
            name: name?,
            max_age: max_age.unwrap_or(DEFAULT_MAX_AGE_MS) / 1000,
        })
    });
    let assign = match (has_cookie, has_key || seed.is_some()) {
        (true, true) => return section.wrong("`remember` excludes `by` and `seed`"),
        (true, false) => remember?,
        (false, _) => Assign::Key {
            source: if has_key { by? } else { None },
            seed: seed.unwrap_or_default(),
        },
    };
    let sides = sides?;
    let total: u64 = sides.iter().map(|side| side.weight).sum();
    if total == 0 {
        return section.wrong("sides: one of them has to have a weight");
    }
    let is_twice = |at: usize| sides[..at].iter().any(|side| side.name == sides[at].name);
    if let Some(at) = (0..sides.len()).find(|at| is_twice(*at)) {
        return section.wrong(&format!("sides: \"{}\" is there twice", sides[at].name));
    }
    Some(Split {
        sides,
        total,
        assign,
    })
}

postern_plugin::export!(RouteBy: request, response);

#[cfg(test)]
mod tests;
