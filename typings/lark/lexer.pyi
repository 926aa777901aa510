from lark import Token as Token
