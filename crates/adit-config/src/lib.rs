//! The configuration file: format, checks, diagnostics, JSON Schema.
