from lark import GrammarError as GrammarError
from lark import LarkError as LarkError
from lark import UnexpectedCharacters as UnexpectedCharacters
from lark import UnexpectedEOF as UnexpectedEOF
from lark import UnexpectedInput as UnexpectedInput
from lark import UnexpectedToken as UnexpectedToken
from lark import VisitError as VisitError
