//! Closed sets of names: an enum whose variants have exactly one spelling in a record.

use thiserror::Error;

/// A name that is not in the closed set it was read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected {expected}")]
pub struct UnknownName {
    /// The names of the set, as a sentence part: `one of: info warn error`.
    pub expected: &'static str,
}

/// Declares an enum with `ALL`, `as_str`, `Display` and `FromStr` from one list of names.
macro_rules! closed_set {
    (
        $(#[$meta:meta])*
        pub enum $set:ident {
            $($(#[$variant_meta:meta])* $variant:ident = $name:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $set {
            $($(#[$variant_meta])* $variant,)+
        }

        impl $set {
            /// Every member, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The names of the set, as a sentence part: `one of: info warn error`.
            pub(crate) const NAMES: &'static str = concat!("one of:", $(" ", $name),+);

            /// The name that stands in a record.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        impl std::fmt::Display for $set {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $set {
            type Err = $crate::UnknownName;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                match name {
                    $($name => Ok(Self::$variant),)+
                    _ => Err($crate::UnknownName { expected: Self::NAMES }),
                }
            }
        }
    };
}

pub(crate) use closed_set;

#[cfg(test)]
mod tests {
    use crate::{End, Level, Omitted};

    #[test]
    fn every_name_is_read_back_as_its_member() {
        for level in Level::ALL {
            assert_eq!(level.as_str().parse(), Ok(*level));
        }
        for end in End::ALL {
            assert_eq!(end.as_str().parse(), Ok(*end));
        }
        for omitted in Omitted::ALL {
            assert_eq!(omitted.as_str().parse(), Ok(*omitted));
        }
    }

    #[test]
    fn names_are_compared_exactly() {
        assert!("INFO".parse::<Level>().is_err());
        assert!("complete ".parse::<End>().is_err());
        assert!("".parse::<Omitted>().is_err());
    }
}
