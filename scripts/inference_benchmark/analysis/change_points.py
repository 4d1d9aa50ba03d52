"""Where the level of a series of measurements changes."""

from __future__ import annotations

from collections.abc import Sequence

from inference_benchmark.analysis.statistics import LEVEL


def change_points(values: Sequence[float], error: float, freedom: float, places: int) -> list[int]:
    """The indices of the values from which on the level is another one.

    error: the standard error of each value, above 0, known with so many degrees of freedom. places: between how many
    pairs of neighbours, in all series together, a change could be.

    PELT (Killick, Fearnhead and Eckley, "Optimal detection of changepoints with a linear computational cost", J. of the
    American Statistical Association 107, 2012), as ruptures has it, finds the levels with the least sum of squares plus
    a penalty for each change. In units of the squared error, a change where there is none saves as much as the square
    of a t variable. The penalty is what one of them, in all places together, exceeds with a probability of at most 5 %
    (Bonferroni).
    """
    if len(values) < 2:
        return []
    # Here, because they take a second to be imported.
    import numpy
    import ruptures
    from scipy.special import stdtrit

    penalty = stdtrit(freedom, 1 - (1 - LEVEL) / places / 2) ** 2
    signal = numpy.array(values) / error
    return ruptures.Pelt(model="l2", min_size=1, jump=1).fit_predict(signal, penalty)[:-1]
