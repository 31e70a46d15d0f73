"""`vitlab pretrain`."""

from vitlab.cli import options
from vitlab.cli.training import train


def pretrain(
    data: options.Data = None,
    model: options.Model = None,
    recipe: options.Pretraining = None,
    out: options.Out = None,
    eval_data: options.EvalData = None,
    image_size: options.ImageSize = None,
    steps: options.Steps = None,
    epochs: options.Epochs = None,
    lr: options.Lr = None,
    batch_size: options.BatchSize = None,
    precision: options.Precision = options.HowPrecise.AUTO,
    compile_: options.Compile = False,
    remat: options.Remat = False,
    exact: options.Exact = False,
    sharded: options.Sharded = False,
    seed: options.Seed = None,
    eval_every: options.EvalEvery = None,
    checkpoint_every: options.CheckpointEvery = None,
    on_bad_image: options.BadImages = options.OnBadImage.FAIL,
    workers: options.Workers = None,
    device: options.Device = "auto",
    processes: options.Processes = None,
    tensorboard: options.TensorBoard = False,
    wandb: options.WandB = None,
    changes: options.Set = None,
    resume: options.Resume = False,
    override_resume: options.Override = False,
) -> None:
    """Pre-train a model from fresh weights, on labelled images or, by --recipe masked, on images without labels.

    With labels, a ViT keeps the tanh layer before its head, as the paper's pre-training does.
    """
    from vitlab.studies.plan import Asked, plan_pretrain

    asked = Asked(
        data=data,
        eval_data=eval_data,
        model=model,
        recipe=recipe,
        image_size=options.parse_size(image_size),
        steps=steps,
        epochs=epochs,
        lr=lr,
        batch_size=options.parse_batch_size(batch_size),
        precision=precision.value,
        compile=compile_,
        remat=remat,
        exact=exact,
        sharded=sharded,
        seed=seed,
        eval_every=eval_every,
        checkpoint_every=checkpoint_every,
        on_bad_image=on_bad_image.value,
        workers=workers,
        device=device,
        tensorboard=tensorboard,
        wandb=wandb,
        changes=tuple(changes or ()),
    )
    train(plan_pretrain, asked, out, resume, processes, override_resume)
