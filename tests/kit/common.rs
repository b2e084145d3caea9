//! The part that the kits of the loop and of the node share.

/// A connector that never answers.
#[derive(Default)]
pub struct Never(Vec<seaprox::Answer>);

impl seaprox::Connector for Never {
    fn wants(&self, _: &seaprox::Target) -> bool {
        true
    }

    fn connect(&mut self, _: &seaprox::Target, answer: seaprox::Answer) {
        self.0.push(answer);
    }
}
