from vitlab.studies import world_paper
from vitlab.studies.scaling import scaling_set
from vitlab.studies.world_miniature import SETS
from vitlab.studies.world_paper import PAPER


def test_the_world_of_the_paper_has_each_line_of_table_6_as_long_as_it_says(monkeypatch):
    monkeypatch.setitem(world_paper.SETS, "large", lambda: SETS["small"])
    models = scaling_set(PAPER)
    assert len(models) == 18 and len({model.name for model in models}) == 18
    lengths = {model.title: model.pretraining(0).settings.train.steps for model in models}
    assert lengths["L/16, 2 × as long"] == 2 * lengths["L/16"] == lengths["H/14"]
    assert lengths["BiT-R152x2, 2 × as long"] == lengths["BiT-R200x3, 2 × as long"] == 2 * lengths["BiT-R152x2"]
