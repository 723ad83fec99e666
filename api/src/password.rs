//! Passwords become argon2id hashes here, before any command is made: neither the log nor the state
//! ever holds one. Signing in verifies against them.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use crate::problem::{Kind, Problem};

/// One hash at a time per node: each takes 19 MiB and some 30 ms of a core, and a node has two.
/// Beyond that the request gets 429 and is tried again, on this node or another.
const HASHES_AT_ONCE: usize = 1;

/// What the password of nobody is verified against, so that it takes as long as that of somebody. Of no password
/// that anybody knows; with the same parameters as [`Hasher::hash`] (a test compares them).
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$cXVvcmF0ZSBub2JvZHk$bm8gdXNlciBvZiBxdW9yYXRlIGhhcyB0aGlzIGhhc2g";

#[derive(Clone)]
pub(crate) struct Hasher {
    permits: Arc<Semaphore>,
}

impl Hasher {
    pub(crate) fn new() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
        }
    }

    /// The hash in PHC form, with a salt from the system's randomness.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Problem> {
        self.run(move || {
            Argon2::default()
                .hash_password(password.as_bytes())
                .map(|hash| hash.to_string())
        })
        .await
    }

    /// Whether the password is the one of the hash; never without a hash, which costs as much.
    pub(crate) async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, Problem> {
        self.run(move || {
            let hash = PasswordHash::new(hash.as_deref().unwrap_or(NOBODY))?;
            match Argon2::default().verify_password(password.as_bytes(), &hash) {
                Ok(()) => Ok(true),
                Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// The same for the same password and scope, on every node. It stands for the password in an
    /// idempotency fingerprint: a fast hash of the body would let a thief of the disk try passwords
    /// much faster than against the stored one.
    pub(crate) async fn stand_in(&self, password: String, scope: &str) -> Result<Vec<u8>, Problem> {
        let salt = format!("quorate idempotency {scope}");
        self.run(move || {
            let mut stand_in = vec![0; 16];
            Argon2::default().hash_password_into(password.as_bytes(), salt.as_bytes(), &mut stand_in)?;
            Ok::<_, argon2::Error>(stand_in)
        })
        .await
    }

    async fn run<T, E>(&self, hash: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, Problem>
    where
        T: Send + 'static,
        E: std::fmt::Display + Send + 'static,
    {
        let permit = Arc::clone(&self.permits)
            .try_acquire_owned()
            .map_err(|_| Problem::new(Kind::Overloaded, "another password is being hashed on this node"))?;
        let hashed = tokio::task::spawn_blocking(move || {
            // Held by the work itself: a caller who goes away does not free the core.
            let _permit = permit;
            hash()
        });
        match hashed.await {
            Ok(Ok(hash)) => Ok(hash),
            Ok(Err(error)) => Err(Problem::internal(
                format!("failed to hash the password: {error}"),
                false,
            )),
            Err(_) => Err(Problem::internal("the password's hashing was broken off", false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn salted_for_storing_and_repeatable_for_retries() {
        let hasher = Hasher::new();
        let hash = hasher.hash("secret".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$"), "{hash}");
        assert_ne!(hash, hasher.hash("secret".to_owned()).await.unwrap());
        let stand_in = hasher.stand_in("secret".to_owned(), "ann").await.unwrap();
        assert_eq!(stand_in, hasher.stand_in("secret".to_owned(), "ann").await.unwrap());
        assert_ne!(stand_in, hasher.stand_in("other".to_owned(), "ann").await.unwrap());
        assert_ne!(stand_in, hasher.stand_in("secret".to_owned(), "bob").await.unwrap());
    }

    #[tokio::test]
    async fn a_password_is_verified_against_its_hash_and_no_other() {
        let hasher = Hasher::new();
        let hash = hasher.hash("secret".to_owned()).await.unwrap();
        let verify = |password: &str, hash: Option<&str>| hasher.verify(password.to_owned(), hash.map(str::to_owned));
        assert!(verify("secret", Some(&hash)).await.unwrap());
        for password in ["Secret", "secret ", "", "other"] {
            assert!(!verify(password, Some(&hash)).await.unwrap(), "{password}");
            assert!(!verify(password, None).await.unwrap(), "{password}");
        }
        assert_eq!(verify("secret", Some("no hash")).await.unwrap_err().code(), "internal");
    }

    /// Nobody's password takes as long as anybody's: the parameters and the lengths are the same.
    #[tokio::test]
    async fn nobody_costs_as_much_as_somebody() {
        let hash = Hasher::new().hash("secret".to_owned()).await.unwrap();
        let (somebody, nobody) = (PasswordHash::new(&hash).unwrap(), PasswordHash::new(NOBODY).unwrap());
        assert_eq!(somebody.algorithm, nobody.algorithm);
        assert_eq!(somebody.version, nobody.version);
        assert_eq!(somebody.params, nobody.params);
        assert_eq!(somebody.hash.unwrap().len(), nobody.hash.unwrap().len());
        assert!(nobody.salt.is_some());
    }

    #[tokio::test]
    async fn a_second_hash_at_the_same_time_is_refused() {
        let hasher = Hasher::new();
        let held = Arc::clone(&hasher.permits).try_acquire_owned().unwrap();
        assert_eq!(hasher.hash("a".to_owned()).await.unwrap_err().code(), "overloaded");
        drop(held);
        assert!(hasher.hash("a".to_owned()).await.is_ok());
    }
}
