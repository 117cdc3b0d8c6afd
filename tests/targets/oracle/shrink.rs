//! From a case that shows something to one that shows it with less.

use crate::case::Case;
use crate::recipe::Recipe;

/// The smallest recipe and then the smallest case that still `shows` it.
pub(crate) fn shrink(recipe: &Recipe, shows: impl Fn(&Case) -> bool) -> (Recipe, Case) {
    let mut recipe = recipe.clone();
    while let Some(smaller) = recipe.smaller().into_iter().find(|smaller| shows(&smaller.make())) {
        recipe = smaller;
    }
    let mut case = recipe.make();
    while let Some(smaller) = fewer(&case).into_iter().find(&shows) {
        case = smaller;
    }
    (recipe, case)
}

/// The case without one thing.
fn fewer(case: &Case) -> Vec<Case> {
    let mut all = Vec::new();
    let mut without = |edit: &dyn Fn(&mut Case)| {
        let mut smaller = case.clone();
        edit(&mut smaller);
        all.push(smaller);
    };
    if case.rounds.len() > 1 {
        for index in 0..case.rounds.len() {
            without(&|case| {
                case.rounds.remove(index);
            });
        }
    }
    for (index, round) in case.rounds.iter().enumerate() {
        for path in 0..round.paths.len() {
            without(&|case| {
                case.rounds[index].paths.remove(path);
            });
        }
        for name in round.files.keys() {
            without(&|case| {
                case.rounds[index].files.remove(name);
            });
        }
        for version in round.roots.keys() {
            without(&|case| {
                case.rounds[index].roots.remove(version);
            });
        }
    }
    all
}
