//! The text of a file and its lines.

use std::ops::Range;

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

/// The text of a configuration file, with an index of its lines.
///
/// With the index the line of a mistake costs a binary search: a file of 100,000 prefixes may have
/// 100,000 mistakes.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
    /// Offset of the first byte of each line.
    lines: Vec<usize>,
}

impl Source {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self {
            name: name.to_owned(),
            text: text.to_owned(),
            lines: std::iter::once(0).chain(starts).collect(),
        }
    }

    /// The line of `offset`, from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    /// The offset at which `line` (from 1) begins.
    pub(crate) fn line_start(&self, line: usize) -> usize {
        self.lines[line - 1]
    }

    /// `span` clamped to the text and to bounds of characters.
    pub(crate) fn clamp(&self, span: Range<usize>) -> Range<usize> {
        let start = self.text.floor_char_boundary(span.start);
        let end = self.text.ceil_char_boundary(span.end);
        start..end.max(start)
    }
}

impl SourceCode for Source {
    /// Finds the lines through the index and leaves the rest to miette, which would otherwise
    /// count from the beginning of the file for each mistake.
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let end = span.offset().checked_add(span.len()).filter(|end| *end <= self.text.len());
        let end = end.ok_or(MietteError::OutOfBounds)?;
        let first = self.line(span.offset()).saturating_sub(before).max(1);
        let last = self.line(end).saturating_add(after).min(self.lines.len());
        let from = self.line_start(first);
        let to = self.lines.get(last).copied().unwrap_or(self.text.len());
        let part = &self.text.as_bytes()[from..to];
        let inner_span = SourceSpan::from((span.offset() - from, span.len()));
        let inner = part.read_span(&inner_span, before, after)?;
        let at = SourceSpan::from((inner.span().offset() + from, inner.span().len()));
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            inner.data(),
            at,
            inner.line() + first - 1,
            inner.column(),
            inner.line_count(),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_from_one() {
        let source = Source::new("x", "ab\r\nc\n\nd");
        let lines: Vec<usize> = (0..=8).map(|offset| source.line(offset)).collect();
        assert_eq!(lines, [1, 1, 1, 1, 2, 2, 3, 4, 4]);
        assert_eq!(source.line_start(4), 7);
        assert_eq!(Source::new("x", "").line(0), 1);
    }

    #[test]
    fn spans_are_brought_into_the_text() {
        let source = Source::new("x", "aäb");
        assert_eq!(source.clamp(2..2), 1..3);
        assert_eq!(source.clamp(9..20), 4..4);
        assert_eq!(source.clamp(std::ops::Range { start: 3, end: 0 }), 3..3);
    }

    #[test]
    fn reads_the_same_as_miette() {
        let text = "one\ntwo two\n\nfour\nfive\nsix";
        let source = Source::new("x", text);
        for start in 0..text.len() {
            for len in 0..(text.len() - start) {
                let span = SourceSpan::from((start, len));
                let ours = source.read_span(&span, 1, 1).unwrap();
                let plain = text.read_span(&span, 1, 1).unwrap();
                assert_eq!(
                    (ours.data(), ours.span(), ours.line(), ours.column()),
                    (plain.data(), plain.span(), plain.line(), plain.column()),
                    "at {start} + {len}"
                );
            }
        }
        assert!(source.read_span(&SourceSpan::from((20, 20)), 1, 1).is_err());
    }
}
