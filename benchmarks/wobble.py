"""How much the checkpoints of real runs wobble: what all prompts of a look share, with the noise of sampling taken out."""

from __future__ import annotations

import numpy as np

Floats = np.ndarray
Series = tuple[Floats, Floats]  # of a run: `relative_series`


def relative_series(values: Floats) -> Series:
    """(y, noise): the mean of each look over the run's mean level, [L], and the covariance of its sampling errors, [L, L].

    values: [prompts, L] of a run that should not change. The errors are those of means over prompts, shown by how
    differently prompts move from look to look.
    """
    level = values.mean()
    moved = values - values.mean(axis=1, keepdims=True)
    return values.mean(axis=0) / level, np.cov(moved.T) / len(values) / level**2


def described(series: list[Series], largest: float) -> str:
    """Size and correlation of the wobble over all runs, in words. largest: relative size up to which the prior is flat."""
    sizes, rhos = np.linspace(0, largest, 151), np.linspace(-0.9, 0.95, 38)
    weight = posterior(series, sizes, rhos)
    size, rho = (quantiles(grid, weight.sum(axis=axis)) for grid, axis in ((sizes, 1), (rhos, 0)))
    contrasts = sum(len(y) - 1 for y, _ in series)
    return (
        f"{contrasts} contrasts of looks within runs, sampling noise removed: "
        + "{:.1f} % of the level [{:.1f}, {:.1f}]".format(*(100 * size[[1, 0, 2]]))
        + "; correlation of neighbouring looks {:+.2f} [{:+.2f}, {:+.2f}]".format(*rho[[1, 0, 2]])
        + f" (median and 95 % of the posterior under flat priors, 0 to {largest:.0%} and -0.9 to 0.95)"
    )


def posterior(series: list[Series], sizes: Floats, rhos: Floats) -> Floats:
    """Posterior [sizes, rhos] under flat priors of a first-order autoregression around a level of each run's own."""
    log = np.zeros((len(sizes), len(rhos)))
    for y, noise in series:
        looks = np.arange(len(y))
        contrasts = np.linalg.svd(np.eye(len(y)) - 1 / len(y))[0][:, :-1].T  # what is left without the level
        wobble = sizes[:, None, None, None] ** 2 * rhos[:, None, None] ** np.abs(looks[:, None] - looks)
        covariance = contrasts @ (wobble + noise) @ contrasts.T  # [sizes, rhos, L - 1, L - 1]
        z = contrasts @ y
        log -= 0.5 * (np.linalg.slogdet(covariance)[1] + np.linalg.solve(covariance, z[:, None])[..., 0] @ z)
    weight = np.exp(log - log.max())
    return weight / weight.sum()


def quantiles(grid: Floats, weight: Floats) -> Floats:
    return np.interp((0.025, 0.5, 0.975), np.cumsum(weight) - weight / 2, grid)
