"""LoRA fine-tuning with Ray Train and DeepSpeed."""
