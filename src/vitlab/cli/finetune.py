"""`vitlab finetune`."""

from vitlab.cli import options
from vitlab.cli.protocol import only_rate, refuse_processes, transfer
from vitlab.cli.training import train


def finetune(
    data: options.Data = None,
    weights: options.Weights = None,
    model: options.Model = None,
    recipe: options.Transfer = None,
    out: options.Out = None,
    eval_data: options.EvalData = None,
    image_size: options.ImageSize = None,
    steps: options.Steps = None,
    epochs: options.Epochs = None,
    lr: options.Rates = None,
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
    protocol: options.Protocol = None,
    seeds: options.Seeds = None,
    resume: options.Resume = False,
    override_resume: options.Override = False,
) -> None:
    """Fine-tune weights on your images; without weights, train a small model from scratch.

    Images of an evaluation part (a val or test folder, else a tenth of every class) are never trained on. --protocol paper
    chooses the rate on a part of the others, and says how good the weights are by the mean of three runs.
    """
    from vitlab.studies.plan import Asked, plan_finetune
    from vitlab.studies.protocol import is_protocol

    by_protocol = protocol is not None or (resume and out is not None and is_protocol(out))
    asked = Asked(
        data=data,
        eval_data=eval_data,
        weights=weights,
        model=model,
        recipe=recipe,
        image_size=options.parse_size(image_size),
        steps=steps,
        epochs=epochs,
        lr=None if by_protocol else only_rate(lr, seeds),
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
    if by_protocol:
        refuse_processes(processes, override_resume)
        transfer(asked, lr or [], seeds, out, resume)
        return
    train(plan_finetune, asked, out, resume, processes, override_resume)
