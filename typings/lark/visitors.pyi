from lark import Transformer as Transformer
from lark import v_args as v_args
