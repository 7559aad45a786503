//! The known name nearest to one that is not known.

use tonic::Status;

/// NOT_FOUND for a `thing` called `name`, with the nearest of `known` if one is near.
pub(super) fn not_found<'a>(
    thing: &str,
    name: &str,
    known: impl Iterator<Item = &'a str>,
) -> Status {
    let name: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
    let near = known
        .map(|candidate| (strsim::osa_distance(&name, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count() / 3);
    Status::not_found(match near {
        Some((_, candidate)) => format!("no {thing} `{name}`; the nearest is `{candidate}`"),
        None => format!("no {thing} `{name}`"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_named_when_it_is_near() {
        let check = |name: &str, expected: &str| {
            let status = not_found("host", name, ["web-1", "db-1"].into_iter());
            assert_eq!(status.message(), expected);
        };
        check("wbe-1", "no host `wbe-1`; the nearest is `web-1`");
        check("zzzzzz\u{1b}[2J", "no host `zzzzzz[2J`");
    }
}
