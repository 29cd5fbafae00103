"""Voice back ends and tool kinds, one small drop-in file each; other packages may add theirs (twisted.plugin)."""

from twisted.plugin import pluginPackagePaths

__path__.extend(pluginPackagePaths(__name__))
__all__: list[str] = []
