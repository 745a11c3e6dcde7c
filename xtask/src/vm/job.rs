//! A job for the guest: a command and its surroundings, written as a shell script that the guest
//! runs.

use std::path::PathBuf;
use std::time::Duration;

/// Variables that every command in the guest has.
const ENVIRONMENT: &[(&str, &str)] = &[("RUST_BACKTRACE", "1"), ("ADIT_STRICT", "1"), ("HOME", "/root")];

/// A command for the guest, and how it is run.
#[derive(Debug)]
pub(crate) struct Job {
    /// The program, by a path or a name in `PATH`, and its arguments.
    pub(crate) command: Vec<String>,
    /// Variables in addition to [`ENVIRONMENT`].
    pub(crate) environment: Vec<(String, String)>,
    /// The directory in which the command runs. The guest has it under the same path.
    pub(crate) directory: PathBuf,
    /// Programs that may be rebuilt while the guest runs. The guest copies them at its start, so
    /// that it never reads a mixture of two builds.
    pub(crate) pinned: Vec<PathBuf>,
    /// How long the guest may live, including its boot.
    pub(crate) timeout: Duration,
}

impl Job {
    /// The job as a script for bash. It exits with the command's code, or with 126 or 127 if the
    /// shell cannot run the command.
    pub(crate) fn script(&self) -> String {
        let mut script = String::new();
        for program in &self.pinned {
            // Opening a file for writing makes overlayfs copy it into the guest's own memory.
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

/// Quotes a word for a POSIX shell.
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

    /// The output and the exit code of the job's script.
    fn run(job: &Job) -> (String, Option<i32>) {
        let output = Command::new("bash").args(["-c", &job.script()]).output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), output.status.code())
    }

    #[test]
    fn a_command_receives_its_arguments_unchanged() {
        let words = ["a b", "it's", "$HOME", "", "*", "new\nline", "\\"];
        let mut command = vec!["printf", "%s|"];
        command.extend(words);
        assert_eq!(run(&job(&command)), (format!("{}|", words.join("|")), Some(0)));
    }

    #[test]
    fn a_command_has_the_jobs_environment_and_directory() {
        let script = ["sh", "-c", "echo $WORD $ADIT_STRICT $PWD; exit 7"];
        assert_eq!(run(&job(&script)), ("two words, 'quoted' 1 /\n".to_owned(), Some(7)));
    }
}
