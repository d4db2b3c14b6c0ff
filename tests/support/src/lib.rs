//! What the tests of darlings share.
