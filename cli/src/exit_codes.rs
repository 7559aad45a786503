//! What the exit codes mean, as printed by `holdfast exit-codes` and in all long help.

use serde::Serialize;

use crate::{error::Error, output::Output};

/// The section of the help and the man page.
pub(crate) const TEXT: &str = "\
Exit codes:
  0  Fine. A closed pipe counts as fine.
  1  An error: the answer could not be given or printed. Of `local doctor`: signals are
     missing. Of `local attest`: a probe failed its proof.
  2  The command line is wrong.
  3  The collector, or the agent of this host, cannot be reached or does not answer.

Environment:
  HOLDFAST_COLLECTOR  Address of the collector, for --collector.
  HOLDFAST_SOCKET     Socket of the agent, for --socket.
  NO_COLOR            Never colour the output when set to anything.";

#[derive(Serialize)]
struct ExitCode {
    code: u8,
    meaning: &'static str,
}

pub(crate) fn run(output: &mut Output) -> Result<(), Error> {
    let (codes, _) = TEXT.split_once("\n\n").unwrap_or((TEXT, ""));
    let lines = codes.lines().skip(1).filter_map(|line| {
        let (code, meaning) = line.trim().split_once("  ")?;
        Some(ExitCode { code: code.parse().ok()?, meaning })
    });
    output.show(&lines.collect::<Vec<_>>(), |_, _| format!("{codes}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::capture;

    #[test]
    fn each_code_is_listed_once() {
        let json = capture(true, |output| run(output).unwrap());
        let codes: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
        assert_eq!(
            codes.iter().map(|c| c["code"].as_u64()).collect::<Vec<_>>(),
            [Some(0), Some(1), Some(2), Some(3)]
        );
    }
}
