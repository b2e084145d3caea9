//! One test for each bug that was found in the core. The name says what must hold; the comment above says what was wrong.

mod bytes;
mod callbacks;
mod turns;
