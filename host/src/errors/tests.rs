//! Chains, by errors that name their causes and errors that don't.

use super::chain;

#[derive(Debug, thiserror::Error)]
enum Odd {
    #[error("outer")]
    Outer(#[source] Box<Odd>),
    #[error("names it: {0}")]
    Names(#[source] Box<Odd>),
    #[error("root")]
    Root,
}

#[test]
fn every_cause_is_named_once() {
    let root = || Box::new(Odd::Root);
    assert_eq!(chain(&Odd::Root), "root");
    assert_eq!(chain(&Odd::Outer(root())), "outer: root");
    assert_eq!(chain(&Odd::Names(root())), "names it: root");
    assert_eq!(chain(&Odd::Outer(Box::new(Odd::Names(root())))), "outer: names it: root");
    assert_eq!(chain(&Odd::Outer(Box::new(Odd::Outer(root())))), "outer: root");
}
