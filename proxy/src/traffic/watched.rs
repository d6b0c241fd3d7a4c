//! What is made of files, and made again when they change: certificates are renewed while traffic goes on.
//!
//! Invariants:
//! - Files that can't be used are refused and named, once; what was made before stays in force
//!   (`what_can_t_be_used_is_refused_and_the_old_stays`).

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::files::{Files, LOOK};

/// A value that is made of files.
pub struct Watched<T> {
    what: String,
    files: Files,
    make: Box<dyn Fn() -> anyhow::Result<T> + Send + Sync>,
    made: ArcSwap<T>,
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("what", &self.what)
            .finish_non_exhaustive()
    }
}

impl<T> Watched<T> {
    /// Makes the value of `files` by `make`; `what` names the settings' table in messages.
    ///
    /// # Errors
    /// What `make` says.
    pub fn new(
        what: String,
        files: Vec<PathBuf>,
        make: impl Fn() -> anyhow::Result<T> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let files = Files::new(files);
        let made = ArcSwap::from_pointee(make()?);
        Ok(Self {
            what,
            files,
            make: Box::new(make),
            made,
        })
    }

    /// The value as it is now.
    pub fn get(&self) -> Arc<T> {
        self.made.load_full()
    }
}

/// Something that follows its files.
trait Follow: Send + Sync {
    /// Looks at the files, and makes the value again if they have changed.
    fn look(&self);
}

impl<T: Send + Sync> Follow for Watched<T> {
    fn look(&self) {
        if !self.files.look() {
            return;
        }
        match (self.make)() {
            Ok(made) => {
                self.made.store(Arc::new(made));
                tracing::info!(what = self.what, "certificate files have changed and are in use");
            }
            Err(error) => tracing::error!(
                what = self.what,
                error = format!("{error:#}"),
                "certificate files have changed and can't be used; the old ones stay in force"
            ),
        }
    }
}

/// Everything that follows its files, for as long as it is in use.
#[derive(Default)]
pub struct Watch {
    all: Mutex<Vec<Weak<dyn Follow>>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// From now on `watched` follows its files.
    pub fn add<T: Send + Sync + 'static>(&self, watched: &Arc<Watched<T>>) {
        let watched: Weak<Watched<T>> = Arc::downgrade(watched);
        self.all.lock().push(watched);
    }

    /// Follows until the runtime ends.
    pub async fn follow(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let this = Arc::clone(&self);
            if this.all.lock().is_empty() {
                continue;
            }
            // A folder that hangs is no client's affair.
            if tokio::task::spawn_blocking(move || this.look()).await.is_err() {
                tracing::error!("looking at certificate files had panicked; the old ones stay in force");
            }
        }
    }

    fn look(&self) {
        let alive: Vec<_> = {
            let mut all = self.all.lock();
            all.retain(|one| one.strong_count() > 0);
            all.iter().filter_map(Weak::upgrade).collect()
        };
        for one in alive {
            one.look();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn number(path: PathBuf) -> Arc<Watched<u32>> {
        let file = path.clone();
        let made = Watched::new("a.tls".to_owned(), vec![path], move || {
            Ok(fs::read_to_string(&file)?.trim().parse()?)
        });
        Arc::new(made.unwrap())
    }

    #[test]
    fn a_file_that_changes_is_made_use_of_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        fs::write(&path, "1").unwrap();
        let watched = number(path.clone());
        let watch = Watch::default();
        watch.add(&watched);
        watch.look();
        assert_eq!(*watched.get(), 1);
        fs::write(&path, "20").unwrap();
        watch.look();
        assert_eq!(*watched.get(), 1, "it may still be written");
        watch.look();
        assert_eq!(*watched.get(), 20);
    }

    #[test]
    fn what_can_t_be_used_is_refused_and_the_old_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        fs::write(&path, "1").unwrap();
        let watched = number(path.clone());
        for bad in [Some("one"), None] {
            match bad {
                Some(text) => fs::write(&path, text).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            watched.look();
            watched.look();
            assert_eq!(*watched.get(), 1);
        }
        fs::write(&path, "3").unwrap();
        watched.look();
        watched.look();
        assert_eq!(*watched.get(), 3);
    }

    #[test]
    fn what_is_no_longer_used_is_no_longer_watched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        fs::write(&path, "1").unwrap();
        let watch = Watch::default();
        watch.add(&number(path));
        watch.look();
        assert!(watch.all.lock().is_empty());
    }
}
