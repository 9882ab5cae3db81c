/**
 * Text that came from a host, made harmless for a terminal: without escape sequences and control characters.
 * Line breaks stay, tabs become spaces.
 */
export function plainText(text: string): string {
  return text
    .replace(/\r\n?/g, '\n')
    .replace(/\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?/g, '')
    .replaceAll('\t', ' ')
    .replace(/[\x00-\x09\x0b-\x1f\x7f-\x9f]/g, '')
}

/** The same on one line. */
export function oneLine(text: string): string {
  return plainText(text).replace(/\s+/g, ' ').trim()
}

/** Columns that a terminal needs for it: East Asian wide characters and emoji take two. */
export function textWidth(text: string): number {
  return [...text].reduce((width, character) => width + characterWidth(character), 0)
}

/** As much of a plain text as fits into `width` columns, an ellipsis at the end where something was cut. */
export function cutToWidth(text: string, width: number): string {
  if (textWidth(text) <= width) return text
  let [kept, used] = ['', 0]
  for (const character of text) {
    used += characterWidth(character)
    if (used > width - 1) break
    kept += character
  }
  return width < 1 ? '' : `${kept}…`
}

function characterWidth(character: string): number {
  if (/\p{Mark}/u.test(character)) return 0
  return /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/u.test(
    character,
  )
    ? 2
    : 1
}
