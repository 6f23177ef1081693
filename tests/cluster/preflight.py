from tests.cluster import binaries
from tests.cluster.upstreams import EVERYTHING, CONTROL_PLANE
def prepare(mode, progress, *, port=0):
    binaries.ensure(EVERYTHING if mode=="node" else CONTROL_PLANE, progress)
