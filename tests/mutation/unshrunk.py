"""Has Hypothesis draw the same examples for each mutant, and leave the first that fails as it is.

A plugin of pytest. Shrinking is for people, and can take longer than all tests together.
"""

from hypothesis import Phase, settings

settings.register_profile(
    "mutation",
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("mutation")
