//! Mistakes in a file, and how they are shown.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, SourceCode};
use serde::ser::{Serialize, SerializeSeq, SerializeStruct, Serializer};

use crate::source::Source;

/// One mistake: where it is, what was found, what was expected, and what to do.
///
/// As JSON: `{"line": …, "column": …, "message": …, "help": …}`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// What was found and what was expected, in one line.
    pub message: String,
    /// The text under the place in a drawing.
    pub label: String,
    /// The place, in bytes from the beginning of the file.
    pub span: Range<usize>,
    /// What to write instead.
    pub help: String,
    /// Other places that take part in the mistake.
    pub others: Vec<Place>,
    /// Line of the place, from 1.
    pub line: usize,
    /// Column of the place, in characters, from 1.
    pub column: usize,
    /// Whether the mistake is that something is missing, which may be wrong if a part of the file
    /// could not be read.
    pub(crate) absence: bool,
}

/// Another place that takes part in a mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The place, in bytes from the beginning of the file.
    pub span: Range<usize>,
    /// The text under it in a drawing.
    pub label: String,
}

impl Problem {
    /// Adds another place that takes part in the mistake.
    pub(crate) fn with_other(&mut self, span: Range<usize>, label: impl Into<String>) -> &mut Self {
        self.others.push(Place { span, label: label.into() });
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.help))
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let here = LabeledSpan::new_primary_with_span(Some(self.label.clone()), self.span.clone());
        let others = self
            .others
            .iter()
            .map(|place| LabeledSpan::new_with_span(Some(place.label.clone()), place.span.clone()));
        Some(Box::new(std::iter::once(here).chain(others)))
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Problem", 4)?;
        object.serialize_field("line", &self.line)?;
        object.serialize_field("column", &self.column)?;
        object.serialize_field("message", &self.message)?;
        object.serialize_field("help", &self.help)?;
        object.end()
    }
}

/// Every mistake of a file, in the order of their places. Never empty.
///
/// Three ways to show them: [`Display`](fmt::Display) writes `FILE:LINE:COLUMN: error: …` and a
/// line of help for each, which suits a pipe and an editor; [`drawn`](Self::drawn) draws them
/// into the text of the file, for a person; `Serialize` makes a list of objects.
#[derive(Clone)]
pub struct Problems {
    source: Arc<Source>,
    problems: Vec<Problem>,
}

impl Problems {
    /// The mistakes in order, one after another, without ends.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.problems.iter()
    }

    /// How many there are: at least 1.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.problems.len()
    }

    /// The name of the file, as it was given.
    #[must_use]
    pub fn file_name(&self) -> &str {
        &self.source.name
    }

    /// The mistakes drawn into the text of the file, `width` columns wide, for a terminal. The
    /// last line counts them. `colour` is for terminals that have it.
    #[must_use]
    pub fn drawn(&self, colour: bool, width: usize) -> String {
        let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_width(width);
        let mut drawn = String::new();
        for problem in &self.problems {
            let before = drawn.len();
            if handler.render_report(&mut drawn, &Located { problem, source: &self.source }).is_err() {
                drawn.truncate(before);
                drawn.push_str(&self.plain(problem));
            }
            drawn.push('\n');
        }
        let count = self.problems.len();
        drawn.push_str(&format!(
            "{count} mistake{} in {}\n",
            if count == 1 { "" } else { "s" },
            self.source.name
        ));
        drawn
    }

    fn plain(&self, problem: &Problem) -> String {
        let Problem { line, column, message, help, .. } = problem;
        format!("{}:{line}:{column}: error: {message}\n  help: {help}\n", self.source.name)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: String = self.problems.iter().map(|problem| self.plain(problem)).collect();
        f.write_str(lines.trim_end_matches('\n'))
    }
}

impl fmt::Debug for Problems {
    /// As `Display`: what a failed `unwrap` in a test should show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Problems {}

impl Diagnostic for Problems {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&*self.source)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.problems.iter().map(|problem| problem as &dyn Diagnostic)))
    }
}

impl Serialize for Problems {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.problems.len()))?;
        for problem in &self.problems {
            list.serialize_element(problem)?;
        }
        list.end()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A mistake together with the file that it is drawn into.
#[derive(Debug)]
struct Located<'a> {
    problem: &'a Problem,
    source: &'a Source,
}

impl fmt::Display for Located<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.problem, f)
    }
}

impl std::error::Error for Located<'_> {}

impl Diagnostic for Located<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.help()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.problem.labels()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.source)
    }
}

/// The mistakes found so far while a file is read.
pub(crate) struct Diagnostics {
    pub(crate) source: Arc<Source>,
    found: Vec<Problem>,
}

impl Diagnostics {
    pub(crate) fn new(source: Source) -> Self {
        Self { source: Arc::new(source), found: Vec::new() }
    }

    /// Adds a mistake.
    pub(crate) fn report(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) -> &mut Problem {
        let problem = Problem {
            message: message.into(),
            label: label.into(),
            span: self.source.clamp(span),
            help: help.into(),
            others: Vec::new(),
            line: 0,
            column: 0,
            absence: false,
        };
        self.found.push(problem);
        let last = self.found.len() - 1;
        &mut self.found[last]
    }

    /// Keeps only the mistakes that `keep` accepts.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&Problem) -> bool) {
        self.found.retain(keep);
    }

    /// How many have been found so far.
    pub(crate) fn len(&self) -> usize {
        self.found.len()
    }

    /// Returns all mistakes in the order of the file, or `Ok` if there are none.
    pub(crate) fn finish(mut self) -> Result<(), Problems> {
        if self.found.is_empty() {
            return Ok(());
        }
        self.found.sort_by_key(|problem| (problem.span.start, problem.span.end));
        // One walk over the text: a long line with many mistakes is not counted anew for each.
        let (mut line_start, mut at, mut column) = (0, 0, 1);
        for problem in &mut self.found {
            problem.line = self.source.line(problem.span.start);
            if self.source.line_start(problem.line) != line_start {
                line_start = self.source.line_start(problem.line);
                (at, column) = (line_start, 1);
            }
            column += self.source.text[at..problem.span.start].chars().count();
            at = problem.span.start;
            problem.column = column;
        }
        Err(Problems { source: self.source, problems: self.found })
    }
}
