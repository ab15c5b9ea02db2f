"""Method and limits of the numbers of `aurel relations`."""

from __future__ import annotations

import numpy as np

from aurel.cli.relation_report.document import Block, Bullets, Heading
from aurel.cli.relation_report.words import number, percent
from aurel.tables.couplings import EXACT_UP_TO
from aurel.tables.relations import COUPLING_RESAMPLES, FEWEST_TOGETHER, PRIOR, Relations
from aurel.tables.resampling import MIN_PEOPLE, Units


def limits(found: Relations) -> list[Block]:
    """Return the sections on the method and its limits, and on the files."""
    return [
        Heading("How the numbers were made"),
        Bullets(_method(found)),
        Heading("What they do not say"),
        Bullets(_cautions(found.units)),
        Heading("Files beside this report"),
        Bullets(_files(found)),
    ]


def _method(found: Relations) -> list[str]:
    units = found.units
    people = len(np.unique(found.table.person))
    if units.block:
        resampled = (
            f"There are fewer than {MIN_PEOPLE} people ({people}), so overlapping blocks of "
            f"{units.block} rows are resampled, a length chosen from the autocorrelation of the "
            f"AUs. They amount to {units.sample_size} independent blocks."
        )
    else:
        resampled = f"The {units.sample_size} people are resampled with replacement."
    varying = int(np.isfinite(found.fields).sum())
    fit = (
        "exact maximum likelihood over all states"
        if varying <= EXACT_UP_TO
        else "maximum pseudo-likelihood (logistic regressions of each AU on the others)"
    )
    method = [
        f"Intervals: {resampled} The standard deviation of a statistic over the resamples gives "
        f"its interval by Student's t with {units.sample_size - 1} degrees of freedom.",
        f"Tests: a pair is tested where at least {FEWEST_TOGETHER} effective frames show both AUs, "
        "or would if they were independent. q is the p-value after Benjamini and Hochberg's "
        "control of false discoveries; what is called surviving has a q of at most "
        f"{number(1 - found.level)}.",
        "Effective frames: the number of independent frames that would give phi the error that "
        "resampling gives it.",
        f"Couplings: the pairwise (Ising) model of presence and absence, by {fit}, with a normal "
        f"prior of standard deviation {PRIOR} on each coupling, which keeps those of rare pairs "
        f"finite. Their intervals are of at most {COUPLING_RESAMPLES} resamples.",
    ]
    if found.comparisons:
        method.append(
            "Conditions: p-values of permutations. Conditions that differ in more than the task, "
            "such as in their order, differ by that, too. q counts the tests of one comparison."
        )
    return method


def _cautions(units: Units) -> list[str]:
    cautions = [
        "A tool that recognizes AUs makes errors that are related themselves: it may see AU06 "
        "because it sees AU12. Relations in a table are those of faces and of the tool together.",
        "Labels depend on the threshold from which an AU counts as present. Try another one "
        "(--threshold) and see which relations stay.",
        "Correlations are over all frames: they hold differences between people as well as what "
        "happens within a person.",
        "A coupling holds fixed the AUs of the table only, not what the table does not show. No "
        "number here says what causes what.",
        "A pair that does not survive may still be related: these data do not decide it.",
    ]
    if not units.block and units.sample_size < 20:
        cautions.insert(
            0,
            f"{units.sample_size} people are few: intervals and q-values are uncertain, too.",
        )
    if units.block and units.sample_size < 20:
        cautions.insert(
            0,
            f"{units.sample_size} independent blocks of time are few: intervals and q-values are "
            "themselves uncertain. Longer recordings or more people would help most.",
        )
    return cautions


def _files(found: Relations) -> list[str]:
    files = [
        "files.csv: what was read and left out; rates.csv: each AU; pairs.csv: each pair",
        "patterns.csv: combinations",
        "relations.graphml: the correlations that survive, for graph programs (Gephi, igraph, R)",
    ]
    if found.timing is not None:
        files.insert(2, "lagged.csv, starts.csv: relations in time")
    if found.comparisons:
        files.insert(2, "compare_*.csv: conditions")
    return [*files, f"low and high in the files are the bounds of {percent(found.level)} intervals"]
