//! A short text that is cheap to copy: the name of a front end, in each of its connections.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A short text that is cheap to copy. A text that is known when the program is built costs no allocation; a text of a
/// script or of another language is allocated once, and its copies share it.
#[derive(Clone)]
pub struct Label(Text);

#[derive(Clone)]
enum Text {
    Static(&'static str),
    /// The box keeps the pointer thin: a record of a connection has a label, and few have a shared one.
    Shared(Arc<Box<str>>),
}

impl Label {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Static(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl From<&'static str> for Label {
    fn from(text: &'static str) -> Label {
        Label(Text::Static(text))
    }
}

/// The text is copied once, and the copies of the label share that.
impl From<Arc<str>> for Label {
    fn from(text: Arc<str>) -> Label {
        Label(Text::Shared(Arc::new((*text).into())))
    }
}

impl From<String> for Label {
    fn from(text: String) -> Label {
        Label(Text::Shared(Arc::new(text.into())))
    }
}

impl Deref for Label {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for Label {
    fn eq(&self, other: &Label) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Label {}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_a_label_share_its_text() {
        let (shared, fixed) = (Label::from("lua".to_owned()), Label::from("socks"));
        assert!(std::ptr::eq(shared.as_str(), shared.clone().as_str()));
        assert!(std::ptr::eq(fixed.as_str(), "socks") || fixed.clone() == fixed);
        assert_eq!((shared.to_string(), &*fixed), ("lua".to_owned(), "socks"));
        assert_eq!(Label::from(Arc::<str>::from("socks")), fixed);
    }
}
