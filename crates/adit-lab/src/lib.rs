//! Test networks in namespaces of their own, and the article's network among them.
