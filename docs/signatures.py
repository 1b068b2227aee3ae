"""An extension of griffe: signatures of values and networks, links to the bibliography.

Griffe knows the fields of standard dataclasses alone; those of flax.struct, of named
tuples and of Linen modules become parameters here in the same way.
"""

import re

import griffe

_OF_FIELDS = {'struct.dataclass', 'nn.Module', 'NamedTuple'}
_BLOCK = re.compile(r'\n(?:\n  .*)(?:\n  .*)*')
_KEY = re.compile(r'\[([A-Z]+\d\d(?: [^]]+)?)\]')


class Signatures(griffe.Extension):
  """Gives classes the signature that their fields make, and papers their links."""

  def on_class_members(self, *, cls: griffe.Class, **kwargs) -> None:
    """Adds `__init__` to a class of fields that has none."""
    del kwargs
    decorators = {str(each.value) for each in cls.decorators}
    bases = {str(base) for base in cls.bases}
    if not (decorators | bases) & _OF_FIELDS:
      return
    init = griffe.Function(
      '__init__', parameters=griffe.Parameters(*_parameters(cls)), parent=cls
    )
    cls.set_member('__init__', init)
    if 'NamedTuple' in bases:  # its fields would be listed one by one
      for name in list(cls.attributes):
        cls.del_member(name)

  def on_instance(self, *, obj: griffe.Object, **kwargs) -> None:
    """Links the keys of papers in a docstring."""
    del kwargs
    if obj.docstring:
      if obj.is_module:  # Markdown wants four spaces before a block
        obj.docstring.value = _BLOCK.sub(
          lambda block: block[0].replace('\n  ', '\n      '),
          obj.docstring.value,
        )
      # A pair of brackets after another would be read as its link.
      text = obj.docstring.value.replace('] [', ']&nbsp;[')
      obj.docstring.value = _KEY.sub(r'[\\[\1\\]](bibliography.html)', text)


def _parameters(cls):
  """Yields a parameter for each field of the class."""
  yield griffe.Parameter('self')
  for name, attribute in cls.attributes.items():
    if attribute.annotation is None or name.startswith('_'):
      continue
    default = attribute.value
    if isinstance(default, griffe.ExprCall):  # struct.field(..., default=...)
      given = {
        each.name: each.value
        for each in default.arguments
        if isinstance(each, griffe.ExprKeyword)
      }
      if str(default.function) == 'struct.field':
        default = given.get('default')
    yield griffe.Parameter(
      name,
      annotation=attribute.annotation,
      kind=griffe.ParameterKind.positional_or_keyword,
      default=default,
    )
