"""From prompts to answers: the engines that all adapters share, and the answers that are kept."""
