"""How people call the models of an evaluation."""

NAMES = {
    "untuned": "before tuning",
    "original": "original",
    "unlearned": "unlearned",
    "retrained": "retrained",
    "retrained_2": "retrained, other seed",
    "retrained_again": "a second retraining",
    "placebo_temperature": "placebo: softened original",
    "placebo_retain": "placebo: tuned on D_r",
}
