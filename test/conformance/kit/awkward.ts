// biome-ignore-start lint/suspicious/noTemplateCurlyInString: the shell's own
/** Arguments that some shell, somewhere, would change. */
export const awkwardArguments = [
  '',
  ' ',
  "it's",
  'say "x"',
  'a\nb\n',
  '$HOME $(id) `id` ${x}',
  'back\\slash\\',
  '!! !x',
  'été € 𐀀 ÁÂ',
  '-n',
  '--',
  '*?[a]{b,c}~#;&|<>()%^',
  '\t\r\u0001\u007f',
  '%s%d\\n\\0101',
]
// biome-ignore-end lint/suspicious/noTemplateCurlyInString: the shell's own
