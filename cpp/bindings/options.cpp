#include "pagedcore/options.hpp"

#include <map>
#include <string>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/records.hpp"

namespace pagedcore::bindings {

void bind_options(nb::module_& m) {
  Record<OptionInfo>(m, "OptionInfo", "What a struct's list says of one of its fields.");
  m.def(
      "options_of",
      [](const std::string& name) {
        using List = std::vector<OptionInfo> (*)();
        static const std::map<std::string, List> lists{
            {"EngineConfig", &options_of<EngineConfig>},         {"SamplingParams", &options_of<SamplingParams>},
            {"BeamSearchParams", &options_of<BeamSearchParams>}, {"EmbeddingParams", &options_of<EmbeddingParams>},
            {"RequestOptions", &options_of<RequestOptions>},     {"SchedulerConfig", &options_of<SchedulerConfig>},
            {"KvCacheConfig", &options_of<KvCacheConfig>}};
        const auto list = lists.find(name);
        if (list == lists.end()) {
          std::string known;
          for (const auto& [each, options] : lists) known.append(known.empty() ? "" : ", ").append(each);
          throw InvalidArgument("record = '" + name + "' is not one of " + known);
        }
        return list->second();
      },
      "record"_a, "The fields of a record of parameters, in order.");
  m.def("stats_of_engine", &stats_of_engine, "What Engine.stats() gives, each of the type counter or gauge.");
}

}  // namespace pagedcore::bindings
