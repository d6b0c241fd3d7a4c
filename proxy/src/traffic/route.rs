//! Which route serves a request: a tree over path segments, and the normalised form of a path.
//!
//! The most specific path wins: a literal segment before `{name}`, `{name}` before `/*`, segment by segment.
//! Among the routes of one path the first whose methods and host fit; where none fits, the next less specific path.
//!
//! Invariants:
//! - Paths are matched normalised, so that no spelling of a path escapes its route
//!   (`no_spelling_of_a_path_escapes_its_route`). What is forwarded is the raw path.
//! - The cost does not depend on the number of routes, but on the path's segments.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::settings::Route;

/// The routes of one generation, as a tree.
#[derive(Debug, Default)]
pub struct Router {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Vec<u8>, Self>,
    any: Option<Box<Self>>,
    here: Vec<Candidate>,
    below: Vec<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    index: u32,
    methods: Vec<String>,
    host: Option<String>,
}

impl Router {
    /// Routes in the order of the configuration; a match is an index into them.
    pub fn new(routes: &[Route]) -> Self {
        let mut root = Node::default();
        for (index, route) in (0..).zip(routes) {
            let candidate = Candidate {
                index,
                methods: route.methods.clone(),
                host: route.host.clone(),
            };
            let path = normalise(route.path.as_bytes());
            let mut node = &mut root;
            let mut below = false;
            for segment in segments(&path) {
                node = match segment {
                    b"*" => {
                        below = true;
                        break;
                    }
                    [b'{', .., b'}'] => node.any.get_or_insert_default(),
                    literal => node.literals.entry(literal.to_vec()).or_default(),
                };
            }
            if below {
                node.below.push(candidate)
            } else {
                node.here.push(candidate)
            }
        }
        Self { root }
    }

    /// The index of the route for a request; `path` is the raw path, without the query.
    pub fn find(&self, method: &str, host: &[u8], path: &[u8]) -> Option<u32> {
        let path = normalise(path);
        let host = without_port(host);
        self.root
            .find(segments(&path), &|candidate| candidate.fits(method, host))
    }
}

impl Node {
    fn find<'p>(
        &self,
        mut rest: impl Iterator<Item = &'p [u8]> + Clone,
        fits: &dyn Fn(&Candidate) -> bool,
    ) -> Option<u32> {
        let first = |candidates: &[Candidate]| candidates.iter().find(|c| fits(c)).map(|c| c.index);
        let deeper = match rest.next() {
            None => first(&self.here),
            Some(segment) => {
                let literal = self
                    .literals
                    .get(segment)
                    .and_then(|node| node.find(rest.clone(), fits));
                literal.or_else(|| self.any.as_ref().and_then(|node| node.find(rest, fits)))
            }
        };
        deeper.or_else(|| first(&self.below))
    }
}

impl Candidate {
    fn fits(&self, method: &str, host: &[u8]) -> bool {
        let method_fits = self.methods.is_empty() || self.methods.iter().any(|m| m == method);
        method_fits
            && self
                .host
                .as_ref()
                .is_none_or(|own| own.as_bytes().eq_ignore_ascii_case(host))
    }
}

fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    path.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty())
}

fn without_port(authority: &[u8]) -> &[u8] {
    match authority.iter().rposition(|byte| *byte == b':') {
        Some(colon) if !authority.ends_with(b"]") => authority.get(..colon).unwrap_or(authority),
        _ => authority,
    }
}

/// A path as it is matched: unreserved characters percent-decoded once, dot segments removed (RFC 3986, 5.2.4);
/// repeated and trailing slashes are left to `segments`, which passes over empty ones.
pub fn normalise(path: &[u8]) -> Cow<'_, [u8]> {
    let dotted = |path: &[u8]| {
        path.split(|byte| *byte == b'/')
            .any(|segment| matches!(segment, b"." | b".."))
    };
    if !path.contains(&b'%') && !dotted(path) {
        return Cow::Borrowed(path);
    }
    let decoded = decode_unreserved(path);
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in segments(&decoded) {
        match segment {
            b"." => {}
            b".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let mut out = Vec::with_capacity(decoded.len());
    for segment in kept {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    Cow::Owned(out)
}

/// `%41` becomes `A`; of what stays encoded the hex digits are upper case (RFC 3986, 6.2.2).
fn decode_unreserved(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = tail
            .split_first_chunk::<2>()
            .filter(|_| byte == b'%')
            .and_then(|(digits, after)| {
                let text = std::str::from_utf8(digits)
                    .ok()
                    .filter(|_| digits.iter().all(u8::is_ascii_hexdigit))?;
                Some((u8::from_str_radix(text, 16).ok()?, digits, after))
            });
        match escaped {
            Some((decoded, digits, after)) => {
                if decoded.is_ascii_alphanumeric() || b"-._~".contains(&decoded) {
                    out.push(decoded);
                } else {
                    out.push(b'%');
                    out.extend(digits.iter().map(u8::to_ascii_uppercase));
                }
                rest = after;
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn router(routes: &[(&str, &[&str], Option<&str>)]) -> Router {
        let routes: Vec<Route> = routes
            .iter()
            .map(|(path, methods, host)| Route {
                path: (*path).to_owned(),
                methods: methods.iter().map(|m| (*m).to_owned()).collect(),
                host: host.map(str::to_owned),
                ..Route::default()
            })
            .collect();
        Router::new(&routes)
    }

    fn get(router: &Router, path: &str) -> Option<u32> {
        router.find("GET", b"example.test", path.as_bytes())
    }

    #[test]
    fn the_most_specific_path_wins_whatever_the_order() {
        let router = router(&[
            ("/*", &[], None),
            ("/users/*", &[], None),
            ("/users/{id}", &[], None),
            ("/users/me", &[], None),
        ]);
        assert_eq!(get(&router, "/users/me"), Some(3));
        assert_eq!(get(&router, "/users/7"), Some(2));
        assert_eq!(get(&router, "/users/7/orders"), Some(1));
        assert_eq!(get(&router, "/users"), Some(1));
        assert_eq!(get(&router, "/"), Some(0));
    }

    #[test]
    fn where_no_method_fits_the_next_less_specific_path_serves() {
        let router = router(&[
            ("/users/{id}", &["GET"], None),
            ("/users/me", &["POST"], None),
            ("/users/*", &["DELETE"], None),
        ]);
        assert_eq!(get(&router, "/users/me"), Some(0));
        assert_eq!(router.find("POST", b"", b"/users/me"), Some(1));
        assert_eq!(router.find("DELETE", b"", b"/users/me"), Some(2));
        assert_eq!(router.find("PUT", b"", b"/users/me"), None);
    }

    #[test]
    fn among_routes_of_one_path_the_first_that_fits_wins() {
        let router = router(&[("/a", &[], Some("one.test")), ("/a", &["GET"], None), ("/a", &[], None)]);
        assert_eq!(router.find("GET", b"ONE.test:8080", b"/a"), Some(0));
        assert_eq!(router.find("GET", b"two.test", b"/a"), Some(1));
        assert_eq!(router.find("PUT", b"two.test", b"/a"), Some(2));
        assert_eq!(router.find("GET", b"[::1]:80", b"/a"), Some(1));
    }

    #[test]
    fn a_star_covers_its_folder_and_all_below() {
        let router = router(&[("/internal/*", &[], None)]);
        for path in ["/internal", "/internal/", "/internal/a", "/internal/a/b"] {
            assert_eq!(get(&router, path), Some(0), "{path}");
        }
        assert_eq!(get(&router, "/internally"), None);
    }

    #[test]
    fn no_spelling_of_a_path_escapes_its_route() {
        let router = router(&[("/login", &[], None), ("/a b", &[], None)]);
        let spellings = [
            "/login",
            "/login/",
            "//login",
            "/%6Cogin",
            "/%6cogin",
            "/./login",
            "/x/../login",
            "/%2e%2E/login",
            "/x/%2e%2e/login",
        ];
        for path in spellings {
            assert_eq!(get(&router, path), Some(0), "{path}");
        }
        assert_eq!(get(&router, "/login%2f"), None);
        assert_eq!(get(&router, "/%256Cogin"), None);
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(path in proptest::collection::vec(proptest::sample::select(b"/.%2eE6cal~".to_vec()), 0..40)) {
            let once = normalise(&path).into_owned();
            prop_assume!(!once.windows(3).any(|w| w[0] == b'%' && w[1..].iter().all(u8::is_ascii_hexdigit)));
            let again: Vec<u8> = normalise(&once).into_owned();
            prop_assert_eq!(segments(&once).collect::<Vec<_>>(), segments(&again).collect::<Vec<_>>());
        }

        #[test]
        fn arbitrary_paths_never_panic(path in proptest::collection::vec(any::<u8>(), 0..200)) {
            let router = router(&[("/{a}/{b}/*", &[], None), ("/x/{b}", &[], None)]);
            router.find("GET", b":::", &path);
        }
    }
}
