//! "Did you mean …?"

/// The candidate nearest to `text`, if one is near enough to be a typing error.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let worst = text.chars().count().div_ceil(3).min(3);
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(text, c), c))
        .filter(|&(distance, _)| distance <= worst)
        .min()
        .map(|(_, candidate)| candidate)
}

/// `, did you mean "…"?`, or nothing, to stand behind "unknown …".
pub fn did_you_mean<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(text, candidates)
        .map(|c| format!(", did you mean {c:?}?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("time-limt", Some("time-limit"))]
    #[case("tiem-limit", Some("time-limit"))]
    #[case("time_limit", Some("time-limit"))]
    #[case("lokc", Some("lock"))]
    #[case("user", None)]
    #[case("", None)]
    fn typing_errors(#[case] text: &str, #[case] is: Option<&str>) {
        assert_eq!(nearest(text, ["time-limit", "lock", "wait"]), is);
    }
}
