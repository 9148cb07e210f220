"""How people call the models of an evaluation."""

NAMES = {
    "untuned": "before tuning",
    "original": "original",
    "unlearned": "unlearned",
    "retrained": "retrained",
    "retrained_2": "retrained, 2nd seed",
    "retrained_again": "retrained again",
    "placebo_temperature": "placebo: softened",
    "placebo_retain": "placebo: tuned on D_r",
}
