//! An order whose URL was lost: the process was killed between the authority's answer and the note of
//! it. An authority that lists the orders of an account (RFC 8555, 7.1.2.1) has it still; others give
//! an order that is pending again to who asks for the same names.

use serde::Deserialize;

use super::Account;
use super::Ca;
use super::CaError;
use super::parse;
use crate::http::Answer;

/// Most orders that are looked at, and most pages of a list: a long list is not worth more than the
/// order.
const MAX_LOOKS: usize = 100;
const MAX_PAGES: usize = 64;

#[derive(Default, Deserialize)]
#[serde(default)]
struct AccountView {
    orders: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OrderList {
    orders: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OrderView {
    status: String,
    identifiers: Vec<IdentifierView>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct IdentifierView {
    value: String,
}

impl Ca {
    /// The URL of an order for exactly these names that nothing was done with; `None` if there is
    /// none, or the authority does not say. `hosts` are sorted.
    pub(crate) async fn find_order(
        &self,
        account: &Account,
        hosts: &[String],
    ) -> Result<Option<String>, CaError> {
        let own = account.inner.id().to_owned();
        let view: AccountView = parse(&self.look(account, &own).await?)?;
        let mut next = view.orders;
        let mut looks = 0;
        for _ in 0..MAX_PAGES {
            let Some(url) = next.take() else { break };
            let page = self.look(account, &url).await?;
            let list: OrderList = parse(&page)?;
            for url in list.orders {
                if looks == MAX_LOOKS {
                    return Ok(None);
                }
                looks += 1;
                let order: OrderView = match self.look(account, &url).await {
                    // Forgotten, and in the list all the same.
                    Err(error) if error.is_gone() => continue,
                    seen => parse(&seen?)?,
                };
                if is_free(&order, hosts) {
                    return Ok(Some(url));
                }
            }
            next = next_page(&page);
        }
        Ok(None)
    }

    /// What is at a URL that only the account may see (RFC 8555, 6.3).
    async fn look(&self, account: &Account, url: &str) -> Result<Answer, CaError> {
        let sign = |nonce: &str| account.key.sign_as(account.inner.id(), url, nonce, "");
        self.signed(url, sign).await
    }
}

fn is_free(order: &OrderView, hosts: &[String]) -> bool {
    let mut names: Vec<String> = order
        .identifiers
        .iter()
        .map(|identifier| identifier.value.to_ascii_lowercase())
        .collect();
    names.sort();
    let mut wanted = hosts.to_vec();
    wanted.sort();
    matches!(&*order.status, "pending" | "ready") && names == wanted
}

/// RFC 8288.
fn next_page(answer: &Answer) -> Option<String> {
    let links = answer.headers.get_all(http::header::LINK).iter();
    let links = links.filter_map(|value| value.to_str().ok());
    let mut links = links.flat_map(|value| value.split(','));
    links.find_map(|link| {
        let (url, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = rest.contains("rel=\"next\"") || rest.contains("rel=next");
        is_next.then(|| url.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_found_again_by_its_names_and_only_while_it_is_open() {
        let order = |status: &str, names: &[&str]| OrderView {
            status: status.to_owned(),
            identifiers: names
                .iter()
                .map(|name| IdentifierView {
                    value: (*name).to_owned(),
                })
                .collect(),
        };
        let wanted = ["a.test".to_owned(), "b.test".to_owned()];
        let cases = [
            (order("pending", &["b.test", "A.test"]), true),
            (order("ready", &["a.test", "b.test"]), true),
            (order("valid", &["a.test", "b.test"]), false),
            (order("invalid", &["a.test", "b.test"]), false),
            (order("pending", &["a.test"]), false),
            (order("pending", &["a.test", "b.test", "c.test"]), false),
        ];
        for (order, is_found) in cases {
            assert_eq!(is_free(&order, &wanted), is_found, "{}", order.status);
        }
    }
}
