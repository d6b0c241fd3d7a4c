//! Where the servers' programs are.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The program in the folder that `SIDELOG_TOOLS` names, else in `.ci/bin` of the repository.
///
/// # Panics
/// When it isn't there.
pub(crate) fn tool(name: &str) -> PathBuf {
    let folder = env::var_os("SIDELOG_TOOLS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/bin"),
        PathBuf::from,
    );
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run `make tools`", path.display());
    path
}

/// The workspace's own program: in the folder that `SIDELOG_PROGRAMS` names, else where cargo puts it, beside the tests' folder.
///
/// # Panics
/// When it isn't built.
pub(crate) fn own(name: &str) -> PathBuf {
    let test = env::current_exe().expect("the test's own path");
    // target/<profile>/deps/<test>-<hash>
    let beside = test.ancestors().nth(2).expect("a test lies in target/<profile>/deps");
    let folder = env::var_os("SIDELOG_PROGRAMS").map_or_else(|| beside.to_owned(), PathBuf::from);
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --workspace` (with the profile of the tests), or name its folder in SIDELOG_PROGRAMS",
        path.display()
    );
    path
}
