//! Configuration text to rules. Everything that is not understood is refused, with its place: a
//! rule with a misspelt condition would apply to everything.

use std::collections::HashMap;

use tinyjson::JsonValue;

use super::Condition;
use super::Problem;
use super::Rule;
use super::RuleAction;
use super::RuleList;
use super::Rules;

type Object = HashMap<String, JsonValue>;

/// Which message a list of rules is for.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Message {
    Request,
    Response,
}

impl Rules {
    /// Reads the plugin's configuration; README.md describes it.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let value: JsonValue = text.parse().map_err(|error: tinyjson::JsonParseError| {
            problem("", &format!("not JSON: {error}"))
        })?;
        let root = object(&value, "")?;
        known_keys(root, "", &["request", "response"])?;
        Ok(Self {
            request: list(root.get("request"), Message::Request, "request")?,
            response: list(root.get("response"), Message::Response, "response")?,
        })
    }
}

fn list(value: Option<&JsonValue>, message: Message, place: &str) -> Result<RuleList, Problem> {
    let mut list = RuleList::default();
    let Some(value) = value else {
        return Ok(list);
    };
    for (index, value) in array(value, place)?.iter().enumerate() {
        let place = format!("{place}[{index}]");
        let rule = rule(value, message, &place, &mut list)?;
        list.rules.push(rule);
    }
    Ok(list)
}

fn rule(
    value: &JsonValue,
    message: Message,
    place: &str,
    list: &mut RuleList,
) -> Result<Rule, Problem> {
    let fields = object(value, place)?;
    known_keys(
        fields,
        place,
        &["when", "set", "add", "remove", "rewrite", "deny"],
    )?;
    let conditions = match fields.get("when") {
        Some(value) => conditions(value, message, &format!("{place}.when"), list)?,
        None => Vec::new(),
    };
    let mut actions = Vec::new();
    if let Some(value) = fields.get("remove") {
        let place = format!("{place}.remove");
        for (index, value) in array(value, &place)?.iter().enumerate() {
            let place = format!("{place}[{index}]");
            let name = field_name(text(value, &place)?, &place)?;
            actions.push(RuleAction::Remove { name });
        }
    }
    if let Some(value) = fields.get("set") {
        let pairs = pairs(value, &format!("{place}.set"))?;
        actions.extend(pairs.map(|(name, value)| RuleAction::Set { name, value }));
    }
    if let Some(value) = fields.get("add") {
        let pairs = pairs(value, &format!("{place}.add"))?;
        actions.extend(pairs.map(|(name, value)| RuleAction::Add { name, value }));
    }
    if let Some(value) = fields.get("rewrite") {
        let place = format!("{place}.rewrite");
        if message == Message::Response {
            return Err(problem(&place, "a response has no path to rewrite"));
        }
        actions.push(rewrite(value, &place)?);
        path_position(list, message);
    }
    if let Some(value) = fields.get("deny") {
        actions.push(deny(value, &format!("{place}.deny"))?);
    }
    if actions.is_empty() {
        let message = "a rule needs one of set, add, remove, rewrite, deny";
        return Err(problem(place, message));
    }
    Ok(Rule {
        conditions,
        actions,
    })
}

fn conditions(
    value: &JsonValue,
    message: Message,
    place: &str,
    list: &mut RuleList,
) -> Result<Vec<Condition>, Problem> {
    let fields = object(value, place)?;
    let keys = ["path-prefix", "method", "header", "absent", "value"];
    known_keys(fields, place, &keys)?;
    let at = |key: &str| format!("{place}.{key}");
    let mut conditions = Vec::new();

    if let Some(value) = fields.get("path-prefix") {
        let prefix = text(value, &at("path-prefix"))?;
        check_path(prefix, &at("path-prefix"))?;
        path_position(list, message);
        conditions.push(Condition::PathPrefix(prefix.to_owned()));
    }
    if let Some(value) = fields.get("method") {
        let method = text(value, &at("method"))?;
        if !is_token(method) {
            return Err(problem(&at("method"), "not a method"));
        }
        conditions.push(Condition::Method {
            at: position(list, of_request(message, ":method")),
            method: method.to_owned(),
        });
    }
    let absent = match fields.get("absent") {
        Some(JsonValue::Boolean(absent)) => *absent,
        Some(_) => return Err(problem(&at("absent"), "must be true or false")),
        None => false,
    };
    match (fields.get("header"), fields.get("value")) {
        (None, None) if !fields.contains_key("absent") => {}
        (None, _) => return Err(problem(place, "absent and value need a header")),
        (Some(_), Some(_)) if absent => {
            return Err(problem(place, "an absent header has no value"));
        }
        (Some(header), value) => {
            let name = field_name(text(header, &at("header"))?, &at("header"))?;
            if name == "set-cookie" {
                return Err(problem(&at("header"), "set-cookie cannot be a condition"));
            }
            let position = position(list, name);
            conditions.push(match value {
                Some(value) => Condition::Value {
                    at: position,
                    value: text(value, &at("value"))?.to_owned(),
                },
                None if absent => Condition::Absent { at: position },
                None => Condition::Present { at: position },
            });
        }
    }
    if conditions.is_empty() {
        return Err(problem(
            place,
            "no condition; leave `when` out to apply always",
        ));
    }
    Ok(conditions)
}

fn rewrite(value: &JsonValue, place: &str) -> Result<RuleAction, Problem> {
    let fields = object(value, place)?;
    known_keys(fields, place, &["prefix", "with"])?;
    let part = |key: &str| {
        let place = format!("{place}.{key}");
        let value = fields.get(key).ok_or_else(|| problem(&place, "is missing"));
        value.and_then(|value| text(value, &place).map(str::to_owned))
    };
    let (prefix, with) = (part("prefix")?, part("with")?);
    check_path(&prefix, &format!("{place}.prefix"))?;
    if !with.is_empty() {
        check_path(&with, &format!("{place}.with"))?;
    }
    Ok(RuleAction::Rewrite { prefix, with })
}

fn deny(value: &JsonValue, place: &str) -> Result<RuleAction, Problem> {
    let fields = object(value, place)?;
    known_keys(fields, place, &["status", "body"])?;
    let at_status = format!("{place}.status");
    let status = match fields.get("status") {
        Some(JsonValue::Number(n)) if n.fract() == 0.0 && (400.0..=599.0).contains(n) => *n as u16,
        Some(_) => return Err(problem(&at_status, "must be a number from 400 to 599")),
        None => return Err(problem(&at_status, "is missing")),
    };
    let body = match fields.get("body") {
        Some(value) => text(value, &format!("{place}.body"))?.to_owned(),
        None => String::new(),
    };
    Ok(RuleAction::Deny { status, body })
}

/// Where a value is in the view, which gets it now if it had not.
fn position(list: &mut RuleList, name: String) -> usize {
    let found = list.view.iter().position(|other| *other == name);
    found.unwrap_or_else(|| {
        list.view.push(name);
        list.view.len() - 1
    })
}

fn path_position(list: &mut RuleList, message: Message) {
    list.path = Some(position(list, of_request(message, ":path")));
}

fn of_request(message: Message, name: &str) -> String {
    match message {
        Message::Request => name.to_owned(),
        Message::Response => format!("req.{name}"),
    }
}

/// Names and values, sorted: an object has no order, and runs should not differ.
fn pairs(
    value: &JsonValue,
    place: &str,
) -> Result<impl Iterator<Item = (String, String)> + use<>, Problem> {
    let mut pairs = Vec::new();
    for (name, value) in object(value, place)? {
        let place = format!("{place}.{name}");
        let value = text(value, &place)?;
        let is_control = |c: char| c != '\t' && c.is_ascii_control();
        if value.contains(is_control) || value.trim_ascii() != value {
            let message = "a value has no control characters and no space at its ends";
            return Err(problem(&place, message));
        }
        pairs.push((field_name(name, &place)?, value.to_owned()));
    }
    pairs.sort();
    Ok(pairs.into_iter())
}

/// The gateway refuses the same names when they are used; here the operator sees it at once.
fn field_name(name: &str, place: &str) -> Result<String, Problem> {
    if !is_token(name) {
        return Err(problem(place, "not a field name"));
    }
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "upgrade"
        | "transfer-encoding" | "content-length" | "host" | "expect" => {
            Err(problem(place, "the gateway writes this field itself"))
        }
        _ => Ok(name),
    }
}

fn is_token(text: &str) -> bool {
    let is_char = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_char)
}

fn check_path(path: &str, place: &str) -> Result<(), Problem> {
    let is_graphic = path.bytes().all(|b| b.is_ascii_graphic());
    if path.starts_with('/') && is_graphic && !path.contains(['?', '#', '\\']) {
        Ok(())
    } else {
        Err(problem(place, "must be a path that begins with '/'"))
    }
}

fn object<'a>(value: &'a JsonValue, place: &str) -> Result<&'a Object, Problem> {
    match value {
        JsonValue::Object(object) => Ok(object),
        _ => Err(problem(place, "must be an object")),
    }
}

fn array<'a>(value: &'a JsonValue, place: &str) -> Result<&'a [JsonValue], Problem> {
    match value {
        JsonValue::Array(array) => Ok(array),
        _ => Err(problem(place, "must be a list")),
    }
}

fn text<'a>(value: &'a JsonValue, place: &str) -> Result<&'a str, Problem> {
    match value {
        JsonValue::String(text) => Ok(text),
        _ => Err(problem(place, "must be a text")),
    }
}

fn known_keys(object: &Object, place: &str, known: &[&str]) -> Result<(), Problem> {
    let mut unknown: Vec<_> = object
        .keys()
        .filter(|key| !known.contains(&key.as_str()))
        .collect();
    unknown.sort();
    match unknown.first() {
        Some(key) => {
            let known = known.join(", ");
            let message = format!("`{key}` is not known here; known are {known}");
            Err(problem(place, &message))
        }
        None => Ok(()),
    }
}

fn problem(place: &str, message: &str) -> Problem {
    Problem {
        place: place.to_owned(),
        message: message.to_owned(),
    }
}
