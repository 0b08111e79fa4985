"""The verb `launch`: the same run somewhere else.

`plan.LaunchPlan` says what runs and on what, and is checked before anything is started or sent. `local`, `nodes`,
`slurm`, `kubernetes` and `modal_call` each turn one plan into text (what --dry-run prints) and carry out that text.
"""
