import type { InventoryProblem, YamlPath } from './inventory-problem.ts'
import { findParameterFault } from './owned-parameters.ts'
import { asMap, type RawInventory, type RawMap } from './raw-inventory.ts'

/** No parameter that replctl sets by itself, and none twice in different spelling: PostgreSQL ignores case. */
export function checkParameters(raw: RawInventory): InventoryProblem[] {
  const maps: [YamlPath, unknown][] = [
    [['postgres', 'parameters'], raw.postgres.parameters],
    ...raw.nodes.flatMap(({ name, map }): [YamlPath, unknown][] => [
      [['nodes', name, 'postgres', 'parameters'], asMap(map.postgres).parameters],
      [['nodes', name, 'parameters'], map.parameters],
    ]),
  ]
  return maps.flatMap(([path, parameters]) => [
    ...checkOwned(raw, path, asMap(parameters)),
    ...checkSpelling(path, Object.keys(asMap(parameters))),
  ])
}

function checkOwned(raw: RawInventory, path: YamlPath, parameters: RawMap): InventoryProblem[] {
  return Object.entries(parameters).flatMap(([name, value]): InventoryProblem[] => {
    const fault = findParameterFault(name, value, { hasArchive: raw.archive !== undefined })
    return fault === undefined ? [] : [{ path, at: { key: [...path, name] }, ...fault }]
  })
}

function checkSpelling(path: YamlPath, names: readonly string[]): InventoryProblem[] {
  const lowered = names.map((name) => name.toLowerCase())
  return names.flatMap((name, index): InventoryProblem[] => {
    const first = lowered.indexOf(name.toLowerCase())
    if (first === index) return []
    const message = `parameter "${name}" is the same as "${names[first]}"`
    return [{ path, at: { key: [...path, name] }, message, hint: 'Remove one of the two.' }]
  })
}
