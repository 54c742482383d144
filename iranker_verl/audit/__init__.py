"""The audit of a reward function: what does it pay policies whose value is known, and which faults does it have?"""
