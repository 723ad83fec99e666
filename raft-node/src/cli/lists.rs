//! Lists longer than a page.

use quorate_client::Error;

/// The contract's largest page.
const PAGE: u32 = 500;

/// One page of a list and the cursor of the next.
pub(crate) type Part<T> = (Vec<T>, Option<String>);

/// Follows the cursors to the end of the list, or to `limit` items.
pub(crate) async fn all<T>(
    limit: Option<u32>,
    page: impl AsyncFn(u32, Option<String>) -> Result<Part<T>, Error>,
) -> Result<Vec<T>, Error> {
    let mut items = Vec::new();
    let mut cursor = None;
    loop {
        let wanted = limit.map_or(PAGE, |limit| limit.saturating_sub(items.len() as u32).min(PAGE));
        if wanted == 0 {
            return Ok(items);
        }
        let (part, next) = page(wanted, cursor).await?;
        items.extend(part);
        cursor = next;
        if cursor.is_none() {
            return Ok(items);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of 0..1200 in pages.
    async fn page(wanted: u32, cursor: Option<String>) -> Result<Part<u32>, Error> {
        let from: u32 = cursor.map_or(0, |cursor| cursor.parse().expect("a cursor of ours"));
        let to = (from + wanted).min(1200);
        Ok(((from..to).collect(), (to < 1200).then(|| to.to_string())))
    }

    #[tokio::test]
    async fn cursors_are_followed_to_the_end_or_the_limit() {
        assert_eq!(all(None, page).await.expect("a list"), (0..1200).collect::<Vec<_>>());
        assert_eq!(
            all(Some(700), page).await.expect("a list"),
            (0..700).collect::<Vec<_>>()
        );
        assert_eq!(all(Some(0), page).await.expect("a list"), Vec::<u32>::new());
    }
}
