"""CoinRun, after procgen's: levels and physics. Pictures and the environment build on them."""
