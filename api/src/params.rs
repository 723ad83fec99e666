//! The query of a URL. A parameter that a route does not know, or one that comes twice, is an error:
//! a misspelt `limit` must not silently mean the default.

use quorate_state_machine::limits::{LIMIT_DEFAULT, LIMIT_MAX};

use crate::percent;
use crate::problem::Problem;

#[derive(Debug, Default)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
}

impl Params {
    /// `+` stands for itself (RFC 3986), so that a time's offset needs no escape; no value of the
    /// contract holds a blank.
    pub(crate) fn parse(query: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut params = Self::default();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (percent::decode(name.as_bytes()), percent::decode(value.as_bytes()))
            else {
                return Err(Problem::bad_request("the query is not percent-encoded UTF-8"));
            };
            if !known.contains(&name.as_str()) {
                return Err(Problem::bad_request(format!("unknown query parameter {name:?}")));
            }
            if params.get(&name).is_some() {
                return Err(Problem::bad_request(format!("query parameter {name:?} is there twice")));
            }
            params.pairs.push((name, value));
        }
        Ok(params)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// `limit`: 1 to 500, 50 when absent.
    pub(crate) fn limit(&self) -> Result<u32, Problem> {
        let Some(text) = self.get("limit") else {
            return Ok(LIMIT_DEFAULT);
        };
        number(text)
            .and_then(|limit| u32::try_from(limit).ok())
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
            .ok_or_else(|| Problem::bad_request(format!("limit must be a number from 1 to {LIMIT_MAX}")))
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::bad_request(format!("{name} must be true or false"))),
        }
    }

    pub(crate) fn seq(&self, name: &str) -> Result<Option<u64>, Problem> {
        self.get(name)
            .map(|text| number(text).ok_or_else(|| Problem::bad_request(format!("{name} must be a seq, a number"))))
            .transpose()
    }
}

/// Decimal digits and nothing else. What is above u64 is as far beyond every end as u64's largest.
pub(crate) fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_repeated_parameters_are_refused() {
        let known = ["limit", "after"];
        assert!(Params::parse(Some("limit=1&after=2"), &known).is_ok());
        assert!(Params::parse(None, &known).is_ok());
        assert!(Params::parse(Some("&"), &known).is_ok());
        for query in [
            "Limit=1",
            "limit=1&limit=1",
            "limit=%zz",
            "after=1&%6cimit=2&limit=3",
            "x",
        ] {
            assert!(Params::parse(Some(query), &known).is_err(), "{query}");
        }
    }

    #[test]
    fn limits_are_1_to_500() {
        let limit = |text: &str| {
            Params::parse(Some(&format!("limit={text}")), &["limit"])
                .unwrap()
                .limit()
        };
        assert_eq!(limit("1").unwrap(), 1);
        assert_eq!(limit("500").unwrap(), 500);
        for text in [
            "-1",
            "0",
            "501",
            "ten",
            "",
            "1.0",
            "+1",
            "4294967297",
            "99999999999999999999999",
        ] {
            assert!(limit(text).is_err(), "{text}");
        }
        assert_eq!(Params::default().limit().unwrap(), 50);
    }
}
