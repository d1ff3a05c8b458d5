//! All mutants in one text: each changed place becomes a choice by [`crate::CHOICE`] between what stands there and its mutants.
//!
//! What is changed is the text, not a syntax tree that is printed again: the lines stay, and an operator is replaced as cargo-mutants
//! does it, so that `a && b && c` with a `||` in it groups as that would.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Arm, BinOp, Block, Expr, ExprBinary, ExprStruct, ExprUnary, Member};

use crate::list::{Genre, Mutant, Position};

/// A part of what a place becomes.
enum Piece {
    Text(String),
    /// What stands there, its own mutants in it.
    Source(Range<usize>),
    /// What only one mutant needs.
    Mutant(u32, Vec<Piece>),
}

use Piece::{Source, Text};

/// A place that is changed.
struct Place {
    range: Range<usize>,
    mutants: Vec<u32>,
    pieces: Vec<Piece>,
}

/// The text with all mutants in it, and where in it each one is.
pub struct Schemata {
    pub text: String,
    /// Of each mutant what it alone needs, and of each place all that it became.
    pub at: Vec<(Range<usize>, Vec<u32>)>,
}

impl Schemata {
    /// Those that an error in `range` is to be blamed on: the innermost.
    pub fn of(&self, range: &Range<usize>) -> Option<&[u32]> {
        let around = self
            .at
            .iter()
            .filter(|(at, _)| at.start <= range.start && range.end <= at.end);
        around
            .min_by_key(|(at, _)| at.len())
            .map(|(_, who)| &who[..])
    }
}

/// Why a mutant is not in the text.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq)]
pub enum Not {
    /// It would not compile.
    Viable,
    /// It can't be chosen at run time.
    Choosable,
}

struct Finder<'a> {
    source: &'a str,
    /// By where they begin.
    wanted: HashMap<(Genre, usize), Vec<&'a Mutant>>,
    places: Vec<Place>,
    unviable: Vec<u32>,
}

/// Puts `mutants` into `source`, their file; second, those that have no place in it.
pub fn make(source: &str, mutants: &[&Mutant]) -> anyhow::Result<(Schemata, Vec<(u32, Not)>)> {
    let file = syn::parse_file(source).context("it is not Rust")?;
    let offset = offsets(source);
    let mut wanted: HashMap<_, Vec<_>> = HashMap::new();
    for mutant in mutants {
        let key = (mutant.genre, offset(mutant.span.start));
        wanted.entry(key).or_default().push(*mutant);
    }
    let mut finder = Finder {
        source,
        wanted,
        places: Vec::new(),
        unviable: Vec::new(),
    };
    finder.visit_file(&file);
    let placed: HashSet<u32> = finder
        .places
        .iter()
        .flat_map(|p| p.mutants.clone())
        .collect();
    let rest = mutants
        .iter()
        .map(|m| m.number)
        .filter(|n| !placed.contains(n));
    let rest = rest.map(|n| match finder.unviable.contains(&n) {
        true => (n, Not::Viable),
        false => (n, Not::Choosable),
    });
    let rest = rest.collect();
    let mut schemata = Schemata {
        text: String::new(),
        at: Vec::new(),
    };
    finder.write(0..source.len(), 0, &mut schemata);
    Ok((schemata, rest))
}

/// From lines and columns, which count characters, to bytes.
pub fn offsets(source: &str) -> impl Fn(Position) -> usize {
    let mut begin = 0;
    let lines: Vec<(usize, &str)> = source
        .split_inclusive('\n')
        .map(|line| {
            begin += line.len();
            (begin - line.len(), line)
        })
        .collect();
    move |position| {
        let (begin, line) = lines[position.line - 1];
        let characters = line.chars().take(position.column - 1);
        begin + characters.map(char::len_utf8).sum::<usize>()
    }
}

fn range(spanned: &impl Spanned) -> Range<usize> {
    spanned.span().byte_range()
}

fn is(n: u32) -> String {
    format!("{}({n})", crate::CHOICE)
}

/// `if A is active { … } else if B is active { … } else { what stands there }`.
fn choice(mutants: Vec<(u32, Vec<Piece>)>, otherwise: Range<usize>) -> Vec<Piece> {
    let mut pieces = vec![Text("(".into())];
    for (n, instead) in mutants {
        pieces.push(Text(format!("if {} {{ (", is(n))));
        pieces.push(Piece::Mutant(n, instead));
        pieces.push(Text(") } else ".into()));
    }
    // in parentheses, as `unsafe { … } == 0` would be two statements at the begin of a block
    pieces.extend([Text("{ (".into()), Source(otherwise), Text(") })".into())]);
    pieces
}

impl<'a> Finder<'a> {
    fn take(&mut self, genre: Genre, at: usize) -> Vec<&'a Mutant> {
        self.wanted.remove(&(genre, at)).unwrap_or_default()
    }

    /// Is its value of a type of its own? Then it can't be returned beside another.
    fn is_opaque(mutant: &Mutant) -> bool {
        let function = mutant.function.as_ref();
        function.is_some_and(|f| f.return_type.contains("impl "))
    }

    fn place(&mut self, range: Range<usize>, mutants: Vec<u32>, pieces: Vec<Piece>) {
        self.places.push(Place {
            range,
            mutants,
            pieces,
        });
    }

    /// Writes what stands in `range`, the places in it changed; those before the `first` are around it.
    fn write(&self, range: Range<usize>, first: usize, to: &mut Schemata) {
        let inside = |place: &Place| {
            let at = &place.range;
            range.start <= at.start && at.start < range.end && at.end <= range.end
        };
        let mut places: Vec<_> = self.places.iter().enumerate().skip(first).collect();
        places.retain(|(_, place)| inside(place));
        // an outer place was found before those in it
        places.sort_by_key(|(i, place)| (place.range.start, !place.range.is_empty(), *i));
        let mut next = range.start;
        for (index, place) in places {
            if place.range.start < next {
                continue;
            }
            to.text += &self.source[next..place.range.start];
            let begin = to.text.len();
            self.write_pieces(&place.pieces, index + 1, to);
            to.at.push((begin..to.text.len(), place.mutants.clone()));
            next = place.range.end;
        }
        to.text += &self.source[next..range.end];
    }

    fn write_pieces(&self, pieces: &[Piece], first: usize, to: &mut Schemata) {
        for piece in pieces {
            match piece {
                Text(text) => to.text += text,
                Source(range) => self.write(range.clone(), first, to),
                Piece::Mutant(n, pieces) => {
                    let begin = to.text.len();
                    self.write_pieces(pieces, first, to);
                    to.at.push((begin..to.text.len(), vec![*n]));
                }
            }
        }
    }

    /// An operator and everything that it is joined with by operators, as one place.
    fn operators(&mut self, whole: &'a ExprBinary) {
        if joins_let(whole) {
            // `||` can't stand there
            let mutants = self.take(Genre::BinaryOperator, range(&whole.op).start);
            self.unviable.extend(mutants.iter().map(|m| m.number));
            self.visit_expr(&whole.left);
            self.visit_expr(&whole.right);
            return;
        }
        let (mut operators, mut operands) = (Vec::new(), Vec::new());
        parts(whole, &mut operators, &mut operands);
        let all = range(whole);
        let mut mutants = Vec::new();
        for operator in operators {
            for mutant in self.take(Genre::BinaryOperator, operator.start) {
                let instead = vec![
                    Source(all.start..operator.start),
                    Text(mutant.replacement.clone()),
                    Source(operator.end..all.end),
                ];
                mutants.push((mutant.number, instead));
            }
        }
        if !mutants.is_empty() {
            let numbers = mutants.iter().map(|(n, _)| *n).collect();
            self.place(all.clone(), numbers, choice(mutants, all));
        }
        for operand in operands {
            self.visit_expr(operand);
        }
    }
}

/// Is it a part of `if let … && …`?
fn joins_let(whole: &ExprBinary) -> bool {
    let has = |side: &Expr| match side {
        Expr::Let(_) => true,
        Expr::Binary(side) => joins_let(side),
        _ => false,
    };
    matches!(whole.op, BinOp::And(_)) && (has(&whole.left) || has(&whole.right))
}

fn parts<'a>(
    whole: &'a ExprBinary,
    operators: &mut Vec<Range<usize>>,
    operands: &mut Vec<&'a Expr>,
) {
    let mut side = |side: &'a Expr, operators: &mut _| match side {
        Expr::Binary(side) => parts(side, operators, operands),
        side => operands.push(side),
    };
    side(&whole.left, operators);
    operators.push(range(&whole.op));
    side(&whole.right, operators);
}

impl<'a> Visit<'a> for Finder<'a> {
    fn visit_block(&mut self, block: &'a Block) {
        if let Some(first) = block.stmts.first() {
            let begin = range(first).start;
            let mutants = self.take(Genre::FnValue, begin);
            for mutant in mutants.into_iter().filter(|m| !Self::is_opaque(m)) {
                let (n, value) = (mutant.number, &mutant.replacement);
                let text = format!("if {} {{ return {value}; }} ", is(n));
                let piece = Piece::Mutant(n, vec![Text(text)]);
                self.place(begin..begin, vec![n], vec![piece]);
            }
        }
        visit::visit_block(self, block);
    }

    fn visit_expr_binary(&mut self, whole: &'a ExprBinary) {
        self.operators(whole);
    }

    fn visit_expr_unary(&mut self, whole: &'a ExprUnary) {
        let all = range(whole);
        for mutant in self.take(Genre::UnaryOperator, all.start) {
            let without = vec![Source(range(&whole.expr))];
            let pieces = choice(vec![(mutant.number, without)], all.clone());
            self.place(all.clone(), vec![mutant.number], pieces);
        }
        visit::visit_expr_unary(self, whole);
    }

    fn visit_arm(&mut self, arm: &'a Arm) {
        let deleted: Vec<_> = self.take(Genre::MatchArm, range(arm).start);
        let deleted: Vec<u32> = deleted.iter().map(|m| m.number).collect();
        let there: Vec<_> = deleted.iter().map(|n| format!("!{}", is(*n))).collect();
        let there = there.join(" && ");
        if let Some((_, guard)) = &arm.guard {
            let all = range(guard);
            let values = self.take(Genre::MatchArmGuard, all.start);
            let mut mutants: Vec<u32> = values.iter().map(|m| m.number).collect();
            let value = |m: &&Mutant| (m.number, vec![Text(m.replacement.clone())]);
            let mut pieces = choice(values.iter().map(value).collect(), all.clone());
            if !there.is_empty() {
                pieces.insert(0, Text(format!("{there} && ")));
                mutants.extend(deleted);
            }
            if !mutants.is_empty() {
                self.place(all, mutants, pieces);
            }
        } else if !there.is_empty() {
            let end = range(&arm.pat).end;
            self.place(end..end, deleted, vec![Text(format!(" if {there}"))]);
        }
        visit::visit_arm(self, arm);
    }

    fn visit_expr_struct(&mut self, whole: &'a ExprStruct) {
        for field in &whole.fields {
            let (Some(base), Member::Named(name)) = (&whole.rest, &field.member) else {
                continue;
            };
            for mutant in self.take(Genre::StructField, range(field).start) {
                let n = mutant.number;
                let value = range(&field.expr);
                let instead = vec![
                    Text("(".into()),
                    Source(range(base)),
                    Text(format!(").{name}")),
                ];
                let mut pieces = choice(vec![(n, instead)], value.clone());
                if field.colon_token.is_none() {
                    pieces.insert(0, Text(format!("{name}: ")));
                }
                self.place(value, vec![n], pieces);
            }
        }
        visit::visit_expr_struct(self, whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::Genre::{
        BinaryOperator, FnValue, MatchArm, MatchArmGuard, StructField, UnaryOperator,
    };

    /// Mutants of one line, each by where it begins.
    fn made(source: &str, mutants: &[(Genre, &str, &str)]) -> (String, Vec<(u32, Not)>) {
        let mutant = |(n, (genre, at, replacement)): (usize, &(Genre, &str, &str))| Mutant {
            number: u32::try_from(n + 1).unwrap(),
            name: String::new(),
            title: String::new(),
            file: String::new(),
            genre: *genre,
            replacement: (*replacement).to_owned(),
            span: crate::list::Span {
                start: Position {
                    line: 1,
                    column: source.find(at).unwrap() + 1,
                },
            },
            function: None,
        };
        let mutants: Vec<_> = mutants.iter().enumerate().map(mutant).collect();
        let (schemata, not) = make(source, &mutants.iter().collect::<Vec<_>>()).unwrap();
        let text = schemata.text.replace(crate::CHOICE, "is");
        assert!(syn::parse_file(&text).is_ok(), "{text}");
        (text, not.into_iter().collect())
    }

    #[test]
    fn an_operator_is_replaced_in_the_text_so_that_it_groups_as_there() {
        let (text, _) = made(
            "fn f() { a && b == c }",
            &[(BinaryOperator, "&&", "||"), (BinaryOperator, "==", "!=")],
        );
        assert_eq!(
            text,
            "fn f() { (if is(1) { (a || b == c) } else if is(2) { (a && b != c) } else { (a && b == c) }) }"
        );
    }

    #[test]
    fn what_stands_in_a_mutant_has_mutants_itself() {
        let (text, _) = made(
            "fn f() { a + (-b) }",
            &[
                (FnValue, "a +", "0"),
                (BinaryOperator, "+", "-"),
                (UnaryOperator, "-b", ""),
            ],
        );
        let b = "((if is(3) { (b) } else { (-b) }))";
        assert_eq!(
            text,
            format!(
                "fn f() {{ if is(1) {{ return 0; }} (if is(2) {{ (a - {b}) }} else {{ (a + {b}) }}) }}"
            )
        );
    }

    #[test]
    fn an_arm_goes_and_a_guard_says_something_else() {
        let (text, _) = made(
            "fn f() { match a { 1 => b, 2 if c => d, _ => S { x: 1, ..e } } }",
            &[
                (MatchArm, "1 =>", ""),
                (MatchArm, "2 if", ""),
                (MatchArmGuard, "c =>", "true"),
                (StructField, "x: 1", ""),
            ],
        );
        assert_eq!(
            text,
            "fn f() { match a { 1 if !is(1) => b, 2 if !is(2) && (if is(3) { (true) } else { (c) }) => d, \
             _ => S { x: (if is(4) { ((e).x) } else { (1) }), ..e } } }"
        );
    }

    #[test]
    fn nothing_else_joins_a_let() {
        let (text, not) = made(
            "fn f() { if a == b && let c = d {} }",
            &[(BinaryOperator, "&&", "||"), (BinaryOperator, "==", "!=")],
        );
        assert!(matches!(not[..], [(1, Not::Viable)]));
        assert_eq!(
            text,
            "fn f() { if (if is(2) { (a != b) } else { (a == b) }) && let c = d {} }"
        );
    }
}
