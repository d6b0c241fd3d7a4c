//! The users, in memory, shared by all requests.
//!
//! Ids ascend from 1 and are never reused; an email belongs to one user, whatever its case.
//! At most [`MAX_USERS`] are kept, with fields of at most [`MAX_FIELD`] bytes: memory has a bound.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::RwLock;

use crate::error::ApiError;

/// How many users fit.
const MAX_USERS: usize = 10_000;
/// The longest name or email, in bytes.
const MAX_FIELD: usize = 254;

/// A user as the API shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct User {
    /// Given by the store.
    pub(crate) id: u64,
    name: String,
    email: String,
}

/// A user as a client sends it.
#[derive(Debug, Deserialize)]
pub(crate) struct NewUser {
    name: String,
    email: String,
}

impl NewUser {
    fn validate(&self) -> Result<(), ApiError> {
        let invalid = |text: String| Err(ApiError::Invalid(text));
        if self.name.trim().is_empty() {
            return invalid("name must not be empty".to_owned());
        }
        if self.name.len() > MAX_FIELD || self.email.len() > MAX_FIELD {
            return invalid(format!("name and email take at most {MAX_FIELD} bytes"));
        }
        match self.email.split_once('@') {
            Some((local, domain)) if !local.is_empty() && !domain.is_empty() => Ok(()),
            _ => invalid("email must look like ada@example.com".to_owned()),
        }
    }
}

/// The store. Clones share the same users.
#[derive(Clone, Debug, Default)]
pub(crate) struct Users {
    kept: Arc<RwLock<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By ascending id: the user with id `n` is at `n - 1`, since users are never removed.
    users: Vec<User>,
    /// The emails of `users` in lower case.
    emails: HashSet<String>,
}

impl Users {
    /// A store with a few users to look at.
    pub(crate) fn seeded() -> Self {
        let mut kept = Kept::default();
        for (name, email) in [
            ("Ada Lovelace", "ada@example.com"),
            ("Grace Hopper", "grace@example.com"),
            ("Alan Turing", "alan@example.com"),
        ] {
            kept.push(name.to_owned(), email.to_owned());
        }
        Self {
            kept: Arc::new(RwLock::new(kept)),
        }
    }

    /// All users by ascending id.
    pub(crate) async fn list(&self) -> Vec<User> {
        self.kept.read().await.users.clone()
    }

    /// The user with this id.
    pub(crate) async fn find(&self, id: u64) -> Option<User> {
        let index = usize::try_from(id.checked_sub(1)?).ok()?;
        self.kept.read().await.users.get(index).cloned()
    }

    /// Stores a new user under the next id.
    ///
    /// # Errors
    /// [`ApiError::Invalid`], [`ApiError::EmailTaken`] or [`ApiError::Full`]; then nothing is stored.
    pub(crate) async fn add(&self, new: NewUser) -> Result<User, ApiError> {
        new.validate()?;
        let mut kept = self.kept.write().await;
        if kept.emails.contains(&new.email.to_lowercase()) {
            return Err(ApiError::EmailTaken(new.email));
        }
        if kept.users.len() >= MAX_USERS {
            return Err(ApiError::Full);
        }
        Ok(kept.push(new.name, new.email))
    }
}

impl Kept {
    fn push(&mut self, name: String, email: String) -> User {
        self.emails.insert(email.to_lowercase());
        let id = self.users.len() as u64 + 1;
        let user = User { id, name, email };
        self.users.push(user.clone());
        user
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(n: usize) -> NewUser {
        NewUser {
            name: format!("user {n}"),
            email: format!("user{n}@example.com"),
        }
    }

    #[tokio::test]
    async fn a_full_store_refuses_and_keeps_what_it_has() {
        let users = Users::default();
        for n in 0..MAX_USERS {
            users.add(numbered(n)).await.unwrap();
        }
        let refused = users.add(numbered(MAX_USERS)).await;
        assert!(matches!(refused, Err(ApiError::Full)), "{refused:?}");
        assert_eq!(users.list().await.len(), MAX_USERS);
    }

    #[tokio::test]
    async fn ids_ascend_without_gaps() {
        let users = Users::seeded();
        users.add(numbered(1)).await.unwrap();
        users.add(numbered(2)).await.unwrap();
        let ids: Vec<u64> = users.list().await.iter().map(|user| user.id).collect();
        assert_eq!(ids, [1, 2, 3, 4, 5]);
    }
}
