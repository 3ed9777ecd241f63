import hotoven
from hotoven.envs.lavagrid_levels import Level, to_ascii
from hotoven.levels import split
from hotoven.types import OUTCOMES

env = hotoven.make("lavagrid")
unseen = split(env, num_train=10, num_validation=0, num_test=1000).test
level = Level(*(leaf[0] for leaf in unseen.levels))
print(f"level 1 of {len(unseen)}, shortest path {unseen.facts['shortest'][0]} steps")
print(to_ascii(level))
for path in (["left", "left", "up"], ["up", "up"]):
    state, shown = env.reset(level)
    for move in path:
        state, shown = env.step(state, env.action_names.index(move))
    print(*path, "->", OUTCOMES[shown.outcome], float(shown.reward))
