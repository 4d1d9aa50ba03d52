"""Changes of the level of a series of measurements."""

from collections.abc import Sequence

from inference_benchmark.analysis.scatter import LEVEL


def change_points(values: Sequence[float], error: float, freedom: float, places: int) -> list[int]:
    """The indices of the values at which a new level begins.

    error: the standard error of each value, above 0. freedom: its degrees of freedom. places: the number of pairs of
    neighbours, in all series together, between which a change could be.

    PELT (Killick, Fearnhead and Eckley, "Optimal detection of changepoints with a linear computational cost", J. of the
    American Statistical Association 107, 2012), implemented by ruptures, finds the levels with the least sum of squares
    plus a penalty for each change. In units of the squared error, a false change saves the square of a t variable. The
    penalty is so high that any of them, in all places together, exceeds it with a probability of at most 5 %
    (Bonferroni).
    """
    if len(values) < 2:
        return []
    # Imported here, because that takes a second.
    import numpy
    import ruptures
    from scipy.special import stdtrit

    penalty = stdtrit(freedom, 1 - (1 - LEVEL) / places / 2) ** 2
    signal = numpy.array(values) / error
    return ruptures.Pelt(model="l2", min_size=1, jump=1).fit_predict(signal, penalty)[:-1]
