//! The nearest match for a mistyped word: an option, a command, a choice.
//!
//! A suggestion is made only if it is likely to be right, because a wrong suggestion is worse than none.

/// Returns `; did you mean CANDIDATE?` with `prefix` in front of each candidate, or an empty text if none is near enough.
pub fn hint<'a>(word: &str, prefix: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let candidates: Vec<_> = candidates.into_iter().collect();
    let count = candidates.len();
    let near: Vec<_> = nearest(word, candidates).into_iter().map(|candidate| format!("{prefix}{candidate}")).collect();
    // The message names the candidates already, so a suggestion of all of them adds nothing.
    if near.is_empty() || near.len() == count {
        String::new()
    } else {
        format!("; did you mean {}?", near.join(" or "))
    }
}

/// Returns the nearest candidates, if any is near enough: one, or several that are equally near.
///
/// A candidate is near if it differs by one slip for each three letters of the word, at most three slips; a slip is a letter
/// too many, a missing letter, a wrong letter, or two exchanged letters. It is also near if it begins with the word. Among
/// equally near candidates, those that share the longest beginning with the word are returned.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let word: Vec<char> = word.chars().take(WORD_CHARS_MAX).flat_map(char::to_lowercase).collect();
    let slips_max = (word.len() / 3).clamp(1, SLIPS_MAX);
    let near: Vec<_> = candidates
        .into_iter()
        .filter_map(|candidate| {
            let letters: Vec<char> = candidate.chars().collect();
            let shared = word.iter().zip(&letters).take_while(|(left, right)| left == right).count();
            let is_start = shared == word.len() && shared >= START_CHARS_MIN;
            let slips = if is_start { 1 } else { distance(&word, &letters) };
            // In a word of one or two letters, the slips must leave at least one letter.
            let fits = slips <= slips_max && slips < word.len();
            fits.then_some(((slips, usize::MAX - shared), candidate))
        })
        .collect();
    let least = near.iter().map(|(distance, _)| *distance).min();
    let equals = near.iter().filter(|(distance, _)| Some(*distance) == least).map(|(_, candidate)| *candidate);
    equals.take(EQUALS_MAX).collect()
}

/// Returns the number of slips between two words: the Damerau-Levenshtein distance, with each pair of letters exchanged at
/// most once (optimal string alignment).
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = vec![0; right.len() + 1];
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut current = Vec::with_capacity(right.len() + 1);
        current.push(i + 1);
        for (j, b) in right.iter().enumerate() {
            let mut least = (previous[j] + usize::from(a != b)).min(previous[j + 1] + 1).min(current[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                least = least.min(before[j - 1] + 1);
            }
            current.push(least);
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous[right.len()]
}

/// Letters of a word that are compared. No option is longer, and the work stays small.
const WORD_CHARS_MAX: usize = 64;
const SLIPS_MAX: usize = 3;
/// Candidates that are returned at most.
const EQUALS_MAX: usize = 3;
/// Letters from which on the beginning of a candidate counts as one slip.
const START_CHARS_MIN: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn slips(left: &str, right: &str) -> usize {
        distance(&left.chars().collect::<Vec<_>>(), &right.chars().collect::<Vec<_>>())
    }

    #[test]
    fn slips_are_counted() {
        for (left, right, count) in [
            ("", "", 0),
            ("", "ab", 2),
            ("ab", "", 2),
            ("listen", "lisen", 1),
            ("socks", "sokcs", 1),
            ("abc", "xyz", 3),
        ] {
            assert_eq!(slips(left, right), count, "{left} {right}");
            assert_eq!(slips(right, left), count, "{right} {left}");
        }
    }

    #[test]
    fn the_nearest_candidate_is_returned() {
        let options = ["listen", "allow", "deny", "connect-timeout", "idle-timeout", "no-splice", "log-format"];
        for (word, found) in [
            ("lisen", "listen"),
            ("Listen", "listen"),
            ("connect-timout", "connect-timeout"),
            ("connect", "connect-timeout"),
            ("no-slpice", "no-splice"),
            ("logformat", "log-format"),
        ] {
            assert_eq!(nearest(word, options), [found], "{word}");
        }
    }

    #[test]
    fn a_distant_candidate_is_not_suggested() {
        for word in ["", "x", "to", "bind", "port", "certificate"] {
            assert!(nearest(word, ["listen", "allow", "no-splice", "threads"]).is_empty(), "{word}");
        }
        assert!(nearest(&"x".repeat(1_000_000), ["listen"]).is_empty());
    }

    #[test]
    fn the_longest_shared_beginning_decides_between_equals() {
        assert_eq!(nearest("pipe-siz", ["pipes", "pipe-size"]), ["pipe-size"]);
        assert_eq!(nearest("hatp", ["cat", "http"]), ["http"]);
    }

    #[test]
    fn equally_near_candidates_are_suggested_together() {
        let commands = ["static", "socks", "http", "status", "selftest"];
        assert_eq!(nearest("stat", commands), ["static", "status"]);
        assert_eq!(nearest("statu", commands), ["status"]);
        assert_eq!(hint("stat", "", commands), "; did you mean static or status?");
        assert_eq!(hint("lin", "--", ["link-dead", "link-hold", "key"]), "; did you mean --link-dead or --link-hold?");
        assert_eq!(hint("x", "", commands), "");
    }
}
