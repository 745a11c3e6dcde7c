//! What is to be done in the guest, as the script that its shell reads there.

use std::path::PathBuf;
use std::time::Duration;

/// What every command in the guest finds in its environment.
const ENVIRONMENT: &[(&str, &str)] = &[("RUST_BACKTRACE", "1"), ("ADIT_STRICT", "1"), ("HOME", "/root")];

/// A command, and how it is run.
#[derive(Debug)]
pub(crate) struct Job {
    /// The program, by a path or a name in `PATH`, and its arguments.
    pub(crate) command: Vec<String>,
    /// Beside [`ENVIRONMENT`].
    pub(crate) environment: Vec<(String, String)>,
    /// Where it runs: a directory of this machine.
    pub(crate) directory: PathBuf,
    /// Programs that somebody may build anew while the guest runs: copied at the start, so that the
    /// guest never runs half of the one and half of the other.
    pub(crate) pinned: Vec<PathBuf>,
    /// How long the guest may live, its boot included.
    pub(crate) timeout: Duration,
}

impl Job {
    /// For bash. Its exit code is the command's; 126 and 127 are the shell's own, as usual.
    pub(crate) fn script(&self) -> String {
        let mut script = String::new();
        for program in &self.pinned {
            // Opened for writing, a file is copied from this machine's files into the guest's own.
            script.push_str(&format!(": >>{}\n", quoted(&program.to_string_lossy())));
        }
        let own = ENVIRONMENT.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        for (name, value) in own.chain(self.environment.iter().cloned()) {
            script.push_str(&format!("export {name}={}\n", quoted(&value)));
        }
        script.push_str(&format!("cd {} || exit 126\nexec", quoted(&self.directory.to_string_lossy())));
        for word in &self.command {
            script.push(' ');
            script.push_str(&quoted(word));
        }
        script.push('\n');
        script
    }
}

/// One word for a POSIX shell, whatever is in it.
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn job(command: &[&str]) -> Job {
        Job {
            command: command.iter().map(|&word| word.to_owned()).collect(),
            environment: vec![("WORD".to_owned(), "two words, 'quoted'".to_owned())],
            directory: PathBuf::from("/"),
            pinned: Vec::new(),
            timeout: Duration::from_secs(1),
        }
    }

    /// What bash does with it.
    fn run(job: &Job) -> (String, Option<i32>) {
        let output = Command::new("bash").args(["-c", &job.script()]).output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), output.status.code())
    }

    #[test]
    fn arguments_arrive_as_they_are() {
        let words = ["a b", "it's", "$HOME", "", "*", "new\nline", "\\"];
        let mut command = vec!["printf", "%s|"];
        command.extend(words);
        assert_eq!(run(&job(&command)), (format!("{}|", words.join("|")), Some(0)));
    }

    #[test]
    fn the_environment_and_the_directory_arrive() {
        let script = ["sh", "-c", "echo $WORD $ADIT_STRICT $PWD; exit 7"];
        assert_eq!(run(&job(&script)), ("two words, 'quoted' 1 /\n".to_owned(), Some(7)));
    }
}
