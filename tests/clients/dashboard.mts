// Whether the dashboard is what Grafana's own types say. What follows behind this is written by the test:
// the dashboard as `whole`, and each panel by itself, since the dashboard's type leaves open what is in one.
import type { Dashboard, Panel } from "@grafana/schema";
import type { Options as Stat } from "./node_modules/@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/types.gen";
import type { Options as BarGauge } from "./node_modules/@grafana/schema/dist/types/raw/composable/bargauge/panelcfg/x/types.gen";
import type { Options as TimeSeries, FieldConfig } from "./node_modules/@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/types.gen";
import type { Options as Table } from "./node_modules/@grafana/schema/dist/types/raw/composable/table/panelcfg/x/types.gen";

// JSON has words where TypeScript has members of an enum.
type Written<T> = T extends string ? `${T}`
    : T extends (infer U)[] ? Written<U>[]
    : T extends object ? { [K in keyof T]: Written<T[K]> }
    : T;
type Options = { stat: Stat; bargauge: BarGauge; timeseries: TimeSeries; table: Table };
type Drawn<K extends keyof Options> = Omit<Written<Panel>, "type" | "options"> & { type: K; options: Written<Options[K]> };
type Lines = Written<FieldConfig>;
